"""The first session of a new user: install stpredict, and run what the README says.

Every command and every part of the README runs in a new interpreter, all in one new folder.
Recorded are seconds, seconds to the first prediction, warnings, and other lines on stderr.

    python benchmarks/first_session.py [--directory PATH] [--package WHEEL] [--python PYTHON]
                                       [--only NAME ...] [--write docs/first_session.md]

By default the package is installed from the checkout into a new virtual environment, with the
settings of pip; ``--python`` uses an environment instead that has the package.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _first_session import Step, page
from _sections import LOCAL
from _slides import make_slide

ROOT = Path(__file__).parents[1]
STATEMENTS = Path(__file__).with_name("_statements.py")
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: Blocks of the README by a part of their text; those of a step share an interpreter.
STEPS = {
    "example": ("stp.datasets.example_model",),
    "phantom": ("stp.datasets.phantom",),
    "help": ("stpredict --help",),
    "doctor": ("stpredict doctor",),
    "session": ("model.save(", "tl.predict_slide(", "tl.cross_validate("),
    "command": ("stpredict predict",),  # with the model that the session saves
}
#: Commands that the README does not have.
COMMANDS = {"help", "doctor"}
#: The slide of the README; a section of HER2ST has as many pixels.
SLIDE, SIDE_PX = "tumour.svs", 9216
VERSIONS = (
    "import json; from stpredict.tl._fitting._record import package_versions; "
    "print(json.dumps(package_versions()))"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    local = os.environ.get("STPREDICT_HER2ST") or (LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--directory", default=local)
    parser.add_argument("--package", default=ROOT, help="what pip installs")
    parser.add_argument("--python", help="Python of an environment that has the package")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--write", type=Path, help="page of the documentation to write")
    arguments = parser.parse_args()
    if arguments.directory:
        os.environ["STPREDICT_HER2ST"] = str(Path(arguments.directory).resolve())
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        python = arguments.python
        if python is None:
            os.environ.pop("PYTHONPATH", None)  # would replace the installed package
            python = create_environment(Path(folder) / "environment")
            user = User(python, Path(folder))
            steps.append(
                user.run("pip install", [python, "-m", "pip", "install", arguments.package])
            )
        user = User(python, Path(folder) / "work")
        user.folder.mkdir()
        if {"session", "command"} & set(arguments.only):
            write_slides(user.folder, arguments.directory)
        steps += [user.step(name) for name in STEPS if name in arguments.only]
        versions = json.loads(user.run("versions", [python, "-c", VERSIONS]).stdout)
        imports = user.imports("example") if "example" in arguments.only else {}
    text = page(steps, imports, versions)
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


def create_environment(folder: Path) -> str:
    """Python of a new virtual environment."""
    # unlike venv, virtualenv works without ensurepip
    subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", folder], check=True)
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def write_slides(folder: Path, directory: str | None) -> None:
    """Write the slides that the README names."""
    (folder / "slides").mkdir()
    slide = make_slide(folder / SLIDE, SIDE_PX, "svs", directory=directory)
    shutil.copy(slide, folder / "slides")


def block(text: str, language: str) -> str:
    """The block of the README in a language that contains a text first."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return next(each for each in blocks if text in each)


@dataclass(frozen=True)
class User:
    """An environment, and the folder in which a user works."""

    python: str
    folder: Path

    def step(self, name: str) -> Step:
        """Run a command, or blocks of Python, as the README has them."""
        texts = STEPS[name]
        if name in COMMANDS:
            return self.run(texts[0], texts[0])
        if name == "command":
            return self.run(f"README: {name}", block(texts[0], "bash").strip())
        record = self.folder / f"{name}.json"
        command = [self.python, str(STATEMENTS), str(record), *self._write_blocks(name)]
        return self.run(f"README: {name}", command, record)

    def imports(self, name: str) -> dict[str, float]:
        """Seconds of the imports of a step by package, without those of what a package imports."""
        command = [self.python, "-X", "importtime", str(STATEMENTS), "imports.json"]
        lines = self.run("imports", [*command, *self._write_blocks(name)]).stderr.splitlines()
        rows = [re.fullmatch(r"import time: +(\d+) \| +\d+ \| *([\w.]+)", line) for line in lines]
        seconds: dict[str, float] = {}
        for row in filter(None, rows):
            package = row[2].split(".")[0]
            seconds[package] = seconds.get(package, 0.0) + int(row[1]) / 1e6
        return dict(sorted(seconds.items(), key=lambda item: -item[1]))

    def run(self, name: str, command: str | list[str], record: Path | None = None) -> Step:
        """Run a command line, or a program with its arguments."""
        programs = os.pathsep.join([str(Path(self.python).parent), os.environ["PATH"]])
        settings = {"PATH": programs, "MPLBACKEND": "agg"}
        started = time.perf_counter()
        done = subprocess.run(
            command,
            shell=isinstance(command, str),  # patterns of file names
            cwd=self.folder,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-5000:]}")
        statements = json.loads(record.read_text(encoding="utf-8")) if record else []
        return Step(name, seconds, done.stdout, done.stderr, statements)

    def _write_blocks(self, name: str) -> list[str]:
        """Files with the blocks of a step."""
        files = []
        for number, text in enumerate(STEPS[name]):
            files.append(self.folder / f"{name}_{number}.py")
            files[-1].write_text(block(text, "python"), encoding="utf-8")
        return [path.name for path in files]


if __name__ == "__main__":
    main()
