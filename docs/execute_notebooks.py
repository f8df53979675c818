"""Run the notebooks in ``docs/tutorials`` and compare their figures with the stored ones.

python docs/execute_notebooks.py [--write] [NAME ...]

A run fails if a cell raises an error or writes a warning, or if a number in the output of a cell
with the tag ``check`` differs from the stored one by more than the tolerance. ``--write`` stores
the new outputs, with small pictures, instead of comparing them.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent / "tutorials"
#: Networks differ in the third decimal between processors.
TOLERANCE = 0.02
#: Limits of the stored pictures and notebooks.
MAX_WIDTH_PX, MAX_PICTURE_BYTES, MAX_NOTEBOOK_BYTES = 1000, 100_000, 1_000_000
NUMBER = re.compile(r"(?<![\w.])[-−]?\d*\.\d+(?![\w.])")


def main() -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of notebooks, without .ipynb")
    parser.add_argument("--write", action="store_true", help="store the outputs")
    arguments = parser.parse_args()
    available = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    unknown = set(arguments.names) - set(available)
    if unknown:
        parser.error(f"no notebook {', '.join(unknown)}; notebooks: {', '.join(available)}")
    problems = []
    for name in arguments.names or available:
        notebook = nbformat.read(available[name], as_version=4)
        stored = checked_numbers(notebook)
        run(notebook)
        problems += [f"{name}: {problem}" for problem in warnings_and_paths(notebook)]
        if arguments.write:
            shrink(notebook)
            nbformat.write(notebook, available[name])
            size = available[name].stat().st_size
            if size > MAX_NOTEBOOK_BYTES:
                problems.append(f"{name}: the notebook has {size:,} bytes")
        else:
            problems += [f"{name}: {text}" for text in differences(stored, notebook)]
        print(f"{name}: done", flush=True)
    if problems:
        sys.exit("\n".join(problems))


def run(notebook: Any) -> None:
    """Execute the cells in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=1800, kernel_name="python3", resources=resources, record_timing=False
        ).execute()
    notebook.metadata.pop("language_info", None)  # names the version of Python


def outputs_of(notebook: Any) -> list[tuple[int, Any, Any]]:
    """Number of each code cell, the cell, and one of its outputs."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(i, cell, output) for i, cell in enumerate(cells, 1) for output in cell.outputs]


def text_of(output: Any) -> str:
    """Text of a stream or of a value."""
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def checked_numbers(notebook: Any) -> dict[int, list[float]]:
    """Decimal numbers in the outputs of cells with the tag ``check``."""
    numbers: dict[int, list[float]] = {}
    for i, cell, output in outputs_of(notebook):
        if "check" in cell.metadata.get("tags", []):
            texts = NUMBER.findall(text_of(output))
            numbers.setdefault(i, []).extend(float(text.replace("−", "-")) for text in texts)
    return numbers


def differences(stored: dict[int, list[float]], notebook: Any) -> list[str]:
    """Describe the cells whose numbers differ from the stored ones."""
    described = []
    for i, new in checked_numbers(notebook).items():
        old = stored.get(i, [])
        if len(old) != len(new):
            described.append(f"cell {i} has {len(new)} numbers, {len(old)} are stored")
        elif any(abs(a - b) > TOLERANCE for a, b in zip(old, new, strict=True)):
            described.append(f"cell {i} has {new}, stored are {old}")
    return described


def warnings_and_paths(notebook: Any) -> list[str]:
    """Describe outputs that must not be stored: warnings, and paths of this machine."""
    folders = [Path.home(), Path(__file__).parents[1], os.environ.get("STPREDICT_HER2ST")]
    names = [str(folder) for folder in folders if folder and len(str(folder)) > 1]
    described = []
    for i, _, output in outputs_of(notebook):
        text = text_of(output)
        if output.get("name") == "stderr":
            described.append(f"cell {i} wrote to stderr:\n{text}")
        if any(name in text for name in [*names, tempfile.gettempdir()]):
            described.append(f"cell {i} shows a path of this machine:\n{text}")
    return described


def shrink(notebook: Any) -> None:
    """Replace pictures by small ones."""
    for *_, output in outputs_of(notebook):
        data = output.get("data", {})
        if "image/png" in data:
            content = base64.b64decode(data.pop("image/png"))
            kind, content = small(Image.open(io.BytesIO(content)).convert("RGB"))
            data[kind] = base64.b64encode(content).decode()


def small(picture: Image.Image) -> tuple[str, bytes]:
    """Encode a picture as PNG with few colours, or as JPEG, which suits tissue."""
    width = min(picture.width, MAX_WIDTH_PX)
    while True:
        height = round(picture.height * width / picture.width)
        resized = picture.resize((width, height), Image.Resampling.LANCZOS)
        encoded = {
            "image/png": encode(resized.quantize(128), "PNG", optimize=True),
            "image/jpeg": encode(resized, "JPEG", quality=75, optimize=True),
        }
        for kind, content in encoded.items():
            if len(content) <= MAX_PICTURE_BYTES:
                return kind, content
        width = round(0.85 * width)


def encode(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


if __name__ == "__main__":
    main()
