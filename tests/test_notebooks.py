"""The notebooks of the documentation, on small synthetic sections instead of the data set."""

from __future__ import annotations

import base64
import functools
import io
import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import stpredict as stp
from helpers import colour, only

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


def embed(sdata, encoder, *, embed=stp.pp.embed, **options):
    """Embed with the mean colours instead of a network, which takes minutes."""
    if encoder in {"efficientnet_lite0", "random_conv"}:
        options |= {"key_added": f"X_{encoder}"}
        encoder = colour
    embed(sdata, encoder, **options)


def short_schedule(*, schedule=stp.tl.Schedule, **options):
    """Train for one epoch, as notebooks ask for up to 40."""
    return schedule(**options | {"max_epochs": 1})


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
    monkeypatch.setattr(stp.pp, "embed", embed)
    network = stp.tl.DeepSpotNetwork(n_hidden=16, n_phi=1, n_rho=2, n_networks=1)
    options = {"network": network, "schedule": stp.tl.Schedule(max_epochs=3)}
    monkeypatch.setattr(stp.tl, "fit_deepspot", functools.partial(stp.tl.fit_deepspot, **options))
    cnn = functools.partial(stp.tl.fit_cnn, schedule=short_schedule())
    monkeypatch.setattr(stp.tl, "fit_cnn", cnn)
    monkeypatch.setattr(stp.tl, "Schedule", short_schedule)
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


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the notebooks are in the repository only")
def test_no_page_hides_warnings():
    pages = [*FOLDER.parent.rglob("*.md"), *FOLDER.glob("*.ipynb")]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    hiding = ("simplefilter", "filterwarnings", "remove-cell")
    assert [name for name, text in texts.items() if any(word in text for word in hiding)] == []


@pytest.fixture(scope="module")
def runner():
    """The script that runs the notebooks, as a dictionary of its functions."""
    pytest.importorskip("nbclient", reason="nbclient runs the notebooks")
    if not FOLDER.is_dir():
        pytest.skip("the notebooks are in the repository only")
    return runpy.run_path(str(FOLDER.parent / "execute_notebooks.py"))


def notebook_of(output, tags=("check",)):
    """A notebook of one cell with one output."""
    cell = nbformat.v4.new_code_cell("1", metadata={"tags": list(tags)}, outputs=[output])
    return nbformat.v4.new_notebook(cells=[cell])


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_figures_are_compared_where_a_cell_is_tagged(runner):
    stored = runner["checked_numbers"](
        notebook_of(stream("pcc 0.414 −0.003 [+0.028, +0.043] 4 genes"))
    )
    assert stored == {1: [0.414, -0.003, 0.028, 0.043]}
    same = notebook_of(stream("pcc 0.420 0.003 [+0.028, +0.043] 5 genes"))
    assert runner["differences"](stored, same) == []
    other = notebook_of(stream("pcc 0.450 0.003 [+0.028, +0.043] 4 genes"))
    (problem,) = runner["differences"](stored, other)
    assert problem.startswith("cell 1 has [0.45,")
    fewer = notebook_of(stream("pcc 0.414"))
    assert runner["differences"](stored, fewer) == ["cell 1 has 1 numbers, 4 are stored"]
    assert runner["checked_numbers"](notebook_of(stream("0.414"), tags=())) == {}


def test_warnings_and_paths_of_this_machine_are_reported(runner):
    check = runner["warnings_and_paths"]
    assert check(notebook_of(stream("0.414"))) == []
    (problem,) = check(notebook_of(stream("UserWarning: ...", name="stderr")))
    assert "wrote to stderr" in problem
    (problem,) = check(notebook_of(stream(f"{FOLDER / 'trust.ipynb'} was read")))
    assert "path of this machine" in problem


def test_stored_pictures_are_small(runner):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), dtype=np.uint8)
    data = {"image/png": base64.b64encode(runner["encode"](Image.fromarray(noise), "PNG")).decode()}
    notebook = notebook_of(nbformat.v4.new_output("display_data", data=data))
    runner["shrink"](notebook)
    ((kind, content),) = notebook.cells[0].outputs[0].data.items()
    assert kind in {"image/png", "image/jpeg"}
    picture = base64.b64decode(content)
    assert len(picture) <= 100_000
    assert Image.open(io.BytesIO(picture)).width <= 1000


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the gallery is in the repository only")
def test_the_gallery_has_every_picture():
    gallery = (FOLDER.parent / "gallery.md").read_text(encoding="utf-8")
    assert [name for name in stp.pl.__all__ if f"stp.pl.{name}(" not in gallery] == []
