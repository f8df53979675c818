"""Condition that every test meets: no display. Fixtures for tests of slides and of benchmarks."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

import pytest
import tifffile

import stpredict as stp

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

os.environ["MPLBACKEND"] = "agg"  # read when matplotlib is first imported, which stpredict defers


@pytest.fixture(scope="session")
def slide_model():
    """Small model of two genes, trained on sections like the slides of `write_slide`."""
    sdata = stp.datasets.phantom(2, size_px=600)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, tile_um=60)
    stp.pp.neighbors(sdata)
    genes = ["morphology_001", "morphology_002"]
    return stp.tl.fit_ridge(sdata, genes=genes, alpha=10.0, context="spot_neighbors")


@pytest.fixture(scope="session")
def write_slide():
    """Function that writes a small slide of a seed as a TIFF file with 1 µm per pixel."""

    def write(path, seed, size_px=600):
        image = stp.datasets.phantom(1, seed=seed, size_px=size_px).images["S1_image"]
        pixels = image["scale0"]["image"].to_numpy().transpose(1, 2, 0)
        one_um = {"resolution": (10_000, 10_000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), **one_um)
        return path

    return write


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser found: {', '.join(BROWSERS)}")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox"] if root else []
            )
        except api.Error as error:
            pytest.skip(f"{program} does not start: {error}")
        yield browser
        browser.close()


@pytest.fixture
def import_benchmark(monkeypatch):
    """Function that imports a file of the folder of benchmarks for the time of a test."""
    if not BENCHMARKS.is_dir():
        pytest.skip("a source distribution has no benchmarks")
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]
