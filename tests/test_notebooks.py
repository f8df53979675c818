"""The notebooks of the documentation, on small synthetic sections instead of the data set."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import stpredict as stp
from helpers import only

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
nbformat = pytest.importorskip("nbformat", reason="nbformat reads the notebooks")


@functools.cache
def phantom():
    """Sections of one patient, with few genes."""
    return stp.datasets.phantom(
        4, size_px=600, pitch_um=52.0, n_morphology=15, n_neighborhood=10, n_null=10,
        n_patients=1, seed=1,
    )  # fmt: skip


def her2st(sections):
    """Sections of the phantom by name."""
    return only(phantom(), list(sections))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Folder of the embeddings that all notebooks share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path, cache_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stp.settings, "cache_dir", cache_dir)
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    monkeypatch.setattr(stp.datasets, "her2st", her2st)
    network = stp.tl.DeepSpotNetwork(n_hidden=16, n_phi=1, n_rho=2, n_networks=1)
    options = {"network": network, "schedule": stp.tl.Schedule(max_epochs=3)}
    fit = functools.partial(stp.tl.fit_deepspot, **options)
    monkeypatch.setattr(stp.tl, "fit_deepspot", fit)
    yield
    plt.close("all")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the notebooks are in the repository only")
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.ipynb")))
def test_the_notebook_runs_on_other_sections(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    names = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # C2 is the first section of the phantom, and so on
            source = re.sub('"C([2-5])', lambda match: f'"S{int(match[1]) - 1}', cell.source)
            source = source.replace("n_top_genes=250", "n_top_genes=25")
            exec(compile(source, f"{name}.ipynb", "exec"), names)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the notebooks are in the repository only")
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.ipynb")))
def test_the_notebook_is_stored_with_its_outputs_and_is_small(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any({"image/png", "image/jpeg"} & set(output.get("data", {})) for output in outputs)
    tagged = [cell for cell in notebook.cells if "check" in cell.metadata.get("tags", [])]
    assert tagged
    assert all(cell.outputs for cell in tagged)
