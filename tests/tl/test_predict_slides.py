"""Many slides: finished ones are skipped, failures are recorded, interrupted runs continue."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import stpredict as stp
from stpredict.models._save import fingerprint
from stpredict.tl._cohort import _jobs


@pytest.fixture
def model(slide_model):
    return slide_model


@pytest.fixture(scope="module")
def slides(write_slide, tmp_path_factory):
    """Three small slides as TIFF files, with their µm per pixel."""
    folder = tmp_path_factory.mktemp("slides")
    return [write_slide(folder / f"slide{seed}.tif", seed) for seed in range(3)]


def predicted(out, name):
    return np.asarray(ad.read_h5ad(out / f"{name}.h5ad").X)


def computed(monkeypatch):
    """Names of the slides that are predicted, as they are."""
    names, original = [], _jobs.predict_slide

    def counted(slide, *args, **options):
        names.append(Path(slide).stem)
        return original(slide, *args, **options)

    monkeypatch.setattr(_jobs, "predict_slide", counted)
    return names


def test_every_slide_is_predicted_once(model, slides, tmp_path, monkeypatch):
    names = computed(monkeypatch)
    for _ in range(2):
        manifest = stp.tl.predict_slides(slides, model, tmp_path)
    assert names == ["slide0", "slide1", "slide2"]
    assert manifest["state"].eq("finished").all()
    assert manifest["slide"].tolist() == [str(slide) for slide in slides]
    assert (manifest["spots"] > 10).all()
    columns = ["name", "slide", "state", "spots", "seconds"]
    written = pd.read_csv(tmp_path / "manifest.csv", dtype={"spots": "Int64"})
    pd.testing.assert_frame_equal(manifest[columns], written[columns])
    expected = stp.tl.predict_slide(slides[1], model).tables["predicted"]
    np.testing.assert_allclose(predicted(tmp_path, "slide1"), expected.X, atol=1e-6)


def test_other_options_another_model_or_another_file_are_computed_again(
    model, write_slide, tmp_path, monkeypatch
):
    slide = write_slide(tmp_path / "slide.tif", seed=0)
    names, out = computed(monkeypatch), tmp_path / "out"
    stp.tl.predict_slides([slide], model, out)
    stp.tl.predict_slides([slide], model, out, genes=["morphology_001"])
    assert predicted(out, "slide").shape[1] == 1
    stp.tl.predict_slides([slide], model, out, genes=["morphology_001"], batch_size=7)
    assert len(names) == 2  # the size of batches changes nothing
    os.utime(slide, ns=(1, 1))
    stp.tl.predict_slides([slide], model, out, genes=["morphology_001"])
    assert len(names) == 3


def test_fine_positions_are_predicted_on_every_slide(model, slides, tmp_path):
    manifest = stp.tl.predict_slides(slides[:2], model, tmp_path, resolution_um=50)
    expected = stp.tl.predict_slide(slides[1], model, resolution_um=50).tables
    stored = sd.read_zarr(tmp_path / "slide1.zarr").tables
    assert manifest["spots"].tolist()[1] == len(expected["predicted"])
    for key in ("predicted", "superresolved"):
        np.testing.assert_allclose(np.asarray(stored[key].X), expected[key].X, atol=1e-6)
    stp.report.write_slides(tmp_path)
    with pytest.raises(ValueError, match="resolution_um=60 is too coarse for the model's neighb"):
        stp.tl.predict_slides(slides, model, tmp_path / "other", resolution_um=60)
    assert not (tmp_path / "other").exists()


def test_a_corrupt_slide_is_recorded_and_the_others_go_on(
    model, slides, write_slide, tmp_path, monkeypatch
):
    corrupt = tmp_path / "corrupt.tif"
    corrupt.write_bytes(slides[0].read_bytes()[:20_000])
    absent = tmp_path / "absent.svs"
    out = tmp_path / "out"
    manifest = stp.tl.predict_slides([corrupt, absent, slides[1]], model, out).set_index("name")
    assert manifest["state"].to_dict() == {
        "absent": "failed",
        "corrupt": "failed",
        "slide1": "finished",
    }
    assert "absent.svs" in manifest.loc["absent", "error"]
    assert "truncated" in manifest.loc["corrupt", "error"]
    assert not list(out.glob("corrupt.*"))
    names = computed(monkeypatch)
    write_slide(corrupt, seed=1)
    again = stp.tl.predict_slides([corrupt], model, out)
    assert again["state"].tolist() == ["finished"]
    states = pd.read_csv(out / "manifest.csv").set_index("name")["state"].to_dict()
    assert states == {"absent": "failed", "corrupt": "finished", "slide1": "finished"}
    assert names == ["corrupt"]


def test_a_result_of_another_tool_is_not_replaced(model, slides, tmp_path):
    foreign = tmp_path / "slide0.zarr"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    manifest = stp.tl.predict_slides(slides[:1], model, tmp_path)
    assert manifest["state"].tolist() == ["failed"]
    assert "slide0.zarr" in manifest.loc[0, "error"]
    assert (foreign / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        ("slide.svs", TypeError, "is one name; give a list"),
        (Path("slide.svs"), TypeError, "slides must be a list of files, not PosixPath"),
        ([1], TypeError, "slides must be a list of files"),
        ([], ValueError, "slides is empty"),
        (["a/slide.svs", "b/slide.ndpi"], ValueError, "names of the slides are not unique.* slide"),
    ],
)
def test_bad_lists_of_slides_are_refused(model, tmp_path, paths, error, message):
    out = tmp_path / "out"
    with pytest.raises(error, match=message):
        stp.tl.predict_slides(paths, model, out)
    assert not out.exists()


def test_a_file_in_place_of_the_folder_is_refused(model, slides, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileExistsError):
        stp.tl.predict_slides(slides, model, tmp_path / "out")


def test_a_model_and_its_saved_copy_have_the_same_fingerprint(model, tmp_path):
    model.save(tmp_path / "model")
    assert fingerprint(stp.models.load(tmp_path / "model")) == fingerprint(model)


def test_workers_of_a_cluster_give_the_same_result(model, slides, tmp_path):
    distributed = pytest.importorskip("distributed")
    stp.tl.predict_slides(slides, model, tmp_path / "here")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False}
    with distributed.Client(dashboard_address=None, **options):
        manifest = stp.tl.predict_slides(slides, model, tmp_path / "cluster")
    assert manifest["state"].eq("finished").all()
    for slide in slides:
        np.testing.assert_array_equal(
            predicted(tmp_path / "here", slide.stem), predicted(tmp_path / "cluster", slide.stem)
        )
