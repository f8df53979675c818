"""Read damaged files of one kind: ``attack_files.py KIND SEED N FOLDER``.

A process of its own, because a damaged file must not crash the interpreter. It prints one line per
input before reading it and one after, as JSON; the test reads the lines.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

import stpredict as stp
from stpredict._runtime import peak_memory

#: Errors that design and documentation promise.
PROMISED = (ValueError, KeyError, TypeError, OSError)
TESTS = Path(__file__).parent.parent


def module(path):
    """A test module, whose functions write valid files."""
    spec = importlib.util.spec_from_file_location(path.stem, TESTS / path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def write_10x():
    return module(Path("io/conftest.py")).write_matrix


def h5ad(folder):
    tests = module(Path("io/test_read_h5ad.py"))
    tests.png(folder / "image.png", tests.random_pixels(180, 260))
    tests.cells().write_h5ad(folder / "X1.h5ad")
    options = {"section": "X1", "mpp": 0.25, "diameter_um": 10.0, "x": "column", "y": "row"}
    return lambda: stp.io.read_h5ad(folder / "X1.h5ad", folder / "image.png", **options)


def st(folder):
    files = module(Path("io/test_read_st.py")).Legacy(folder)
    files.read()
    return lambda: stp.io.read_st(files.counts, files.image, files.spots_file, section="A1")


def visium(folder):
    module(Path("io/test_read_visium.py")).write_visium(folder / "outs", write_10x())
    return lambda: stp.io.read_visium(folder / "outs", section="V1")


def visium_hd(folder):
    tests = module(Path("io/test_read_visium_hd.py"))
    tests.write_bin(folder / "outs" / "binned_outputs" / "square_016um", 16, write_10x())
    return lambda: stp.io.read_visium_hd(folder / "outs", section="H1", bin_size_um=16)


def xenium(folder):
    files = module(Path("io/test_read_xenium.py")).Xenium(folder, write_10x())
    return lambda: stp.io.read_xenium(files.folder, section="X1")


def hackathon(folder):
    module(Path("io/test_read_hackathon.py")).write(folder / "hackathon.h5")
    return lambda: stp.io.read_hackathon(folder / "hackathon.h5")


def slides(folder):
    """One of each format, and the pixels of their coarsest level."""
    tests = module(Path("io/test_read_slide.py"))
    for name, write in tests.WRITERS.items():
        write(folder / name, tests.levels_of())

    def read():
        for name in tests.WRITERS:
            slide = stp.io.read_slide(folder / name)
            list(slide.images["a_image"].children.values())[-1]["image"].to_numpy()

    return read


def model(folder):
    sdata = stp.datasets.phantom(size_px=300, mpp=0.5, pitch_um=40, n_morphology=2)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, tile_um=40)
    genes = list(sdata["table"].var_names[:2])
    stp.tl.fit_ridge(sdata, genes=genes, context="spot", alpha=1.0).save(folder / "model")
    return lambda: stp.models.load(folder / "model")


KINDS = {f.__name__: f for f in (h5ad, st, visium, visium_hd, xenium, hackathon, slides, model)}


def damage(file, random):
    """Change one file: some bytes, its end, a number in its text, or all of it."""
    data = bytearray(file.read_bytes())
    how_many = int(random.integers(1, 9))
    kind = random.choice(["bytes", "end", "digits", "empty", "text"], p=[0.4, 0.2, 0.3, 0.05, 0.05])
    digits = [i for i, byte in enumerate(data[:100_000]) if chr(byte).isdigit()]
    if kind == "digits" and digits:
        for place in random.choice(digits, how_many):
            data[place] = int(random.choice(list(b"0123456789-e.")))
    elif kind == "end":
        del data[int(random.integers(0, len(data))) :]
    elif kind == "empty":
        data.clear()
    elif kind == "text":
        data = bytearray(b"<html>404</html>\n")
    else:
        for place in random.integers(0, len(data), how_many):
            data[place] = int(random.integers(256))
    file.write_bytes(data)
    return f"{file.name}: {kind}"


def main(kind, seed, n, folder):
    stp.settings.verbosity = 0
    warnings.simplefilter("ignore")
    intact, damaged = folder / "intact", folder / "damaged"
    damaged.mkdir()
    read = KINDS[kind](damaged)  # the function reads the same paths each time
    shutil.copytree(damaged, intact)
    files = sorted(path.relative_to(intact) for path in intact.rglob("*") if path.is_file())
    random = np.random.default_rng(seed)
    for _ in range(n):
        shutil.copytree(intact, damaged, dirs_exist_ok=True)
        what = damage(damaged / files[random.integers(len(files))], random)
        print(json.dumps({"input": what}), flush=True)
        start = time.perf_counter()
        try:
            read()
            outcome = {"read": True}
        except PROMISED as error:
            ours = "stpredict" in traceback.extract_tb(error.__traceback__)[-1].filename
            outcome = {"error": f"{type(error).__name__}: {error}", "ours": ours}
        outcome["seconds"] = time.perf_counter() - start
        outcome["megabytes"] = peak_memory() / 2**20
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
