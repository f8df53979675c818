"""The page of predicted slides."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata
import tifffile

import stpredict as stp
from stpredict.report import _slides
from stpredict.tl._prediction._store import read_result

GENES = ["morphology_001", "morphology_002", "null_001", "null_002"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of a slide, and the record of one that failed."""
    folder = tmp_path_factory.mktemp("slides")
    sdata = stp.datasets.phantom(2, size_px=600)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, tile_um=60)
    model = stp.tl.fit_ridge(sdata, genes=GENES, alpha=1.0, context="spot")
    pixels = sdata.images["S1_image"]["scale0"]["image"].to_numpy().transpose(1, 2, 0)
    slide = folder / "one<b>.tif"
    tifffile.imwrite(slide, pixels, photometric="rgb", tile=(256, 256))
    stp.tl.predict_slides([slide, folder / "absent.svs"], model, folder / "out", mpp=1.0)
    return folder / "out"


def test_the_page_shows_finished_and_failed_slides(folder):
    stp.report.write_slides(folder)
    page = (folder / "summary.html").read_text(encoding="utf-8")
    assert "<b>1</b> finished" in page
    assert "<b>1</b> failed" in page
    assert "absent.svs" in page
    assert page.count("data:image/webp") == 1
    assert "<b>.tif" not in page  # names are escaped
    predicted = spatialdata.read_zarr(folder / "one_b_.zarr").tables["predicted"]
    order = np.argsort(-np.asarray(predicted.X).var(axis=0))
    drawn = ", ".join(predicted.var_names[order[:3]])
    assert f"maps of {drawn}" in page


def test_pictures_are_drawn_once_and_again_for_other_genes(folder):
    stp.report.write_slides(folder)
    (picture,) = (folder / ".stpredict").glob("*.uri")
    time = picture.stat().st_mtime_ns
    stp.report.write_slides(folder)
    assert picture.stat().st_mtime_ns == time
    stp.report.write_slides(folder, genes=["null_001"])
    (other,) = (folder / ".stpredict").glob("*.uri")
    assert other != picture
    assert "maps of null_001" in (folder / "summary.html").read_text(encoding="utf-8")


def test_a_folder_without_results_and_a_page_of_others_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no results: run stp\.tl\.predict_slides"):
        stp.report.write_slides(tmp_path)
    other = tmp_path / "notes.html"
    other.write_text("mine")
    with pytest.raises(FileExistsError, match="is not a report"):
        stp.report.write_slides(folder, other)
    with pytest.raises(KeyError, match="no_gene"):
        stp.report.write_slides(folder, tmp_path / "new.html", genes=["no_gene"])
    assert other.read_text() == "mine"
    assert not (tmp_path / "new.html").exists()


def test_titles_of_panels_are_without_the_name_of_the_slide_and_nothing_is_logged(folder, caplog):
    figure = _slides._draw(read_result(folder / "one_b_.zarr"), GENES[:1])
    assert [ax.get_title() for ax in figure.axes[1:2]] == ["morphology_001 predicted"]
    title = figure.axes[0].get_title()
    assert title.endswith(" mm² of tissue")
    assert "one" not in title
    assert caplog.records == []
