"""Reports of evaluations: tables of several tools side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import stpredict as stp
from stpredict._sdata._spot_table import copy_of
from stpredict.report import _maps
from stpredict.report._evaluated import open_evaluated


@pytest.fixture(scope="module")
def prepared():
    """Our predictions of two sections, those of a tool in other units, and of one section."""
    sdata = stp.datasets.phantom(2, size_px=500, n_morphology=3, n_neighborhood=2, n_null=1)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, lambda tiles: tiles.mean((-2, -1)), key_added="X_colour")
    stp.pp.neighbors(sdata)
    genes = list(sdata["table"].var_names[:4])
    ridge = stp.tl.fit_ridge(sdata, embedding="X_colour", genes=genes, context="spot", alpha=1.0)
    stp.tl.predict(sdata, ridge)
    frame = sdata["predicted"].to_df()
    stp.io.read_predictions(
        sdata, 100 * frame.iloc[:-5, 1:], training_sections=[], key_added="in_r"
    )
    first = sdata["table"].obs["region"] == "S1"
    stp.io.read_predictions(
        sdata, frame[first.to_numpy()] + 1, same_units=True, key_added="lazyslide"
    )
    return sdata


TABLES = ["predicted", "in_r", "lazyslide"]


@pytest.fixture
def sdata(prepared):
    return copy_of(prepared)


def test_the_page_compares_the_tables(sdata, tmp_path):
    gmt = tmp_path / "sets.gmt"
    gmt.write_text("TUMOUR\tnote\tmorphology_002\n")
    scores = stp.tl.evaluate(sdata, ["predicted", "lazyslide"], gene_sets=gmt)
    stp.report.write_html(sdata, scores, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>LEAKY: Evaluation of predicted, lazyslide</title>" in page
    assert "Differences between methods" in page
    assert "predicted - lazyslide =" in page
    assert "PCC of gene programmes" in page
    assert "TUMOUR" in page
    assert "out of fold" not in page
    for note in scores.protocol.notes:
        assert note.replace("'", "&#39;") in page
    assert "units of" not in page


def test_maps_have_the_values_of_each_table(sdata, tmp_path):
    scores = stp.tl.evaluate(sdata, TABLES)
    spots = open_evaluated(sdata, scores, "table")
    own = sdata["predicted"].to_df()
    assert spots.table.obs_names.tolist() == own.index[:-5].tolist()
    assert spots.table.var_names.tolist() == list(own)
    measured = sdata["table"].to_df("log1p").loc[spots.table.obs_names, list(own)]
    np.testing.assert_allclose(spots.table.X, measured, atol=1e-6)
    np.testing.assert_allclose(spots.table.layers["predicted"], own.iloc[:-5], atol=1e-6)
    first = (spots.table.obs["region"] == "S1").to_numpy()
    lazyslide = spots.table.layers["lazyslide"]
    np.testing.assert_allclose(lazyslide[first], own.iloc[:-5][first] + 1, atol=1e-6)
    assert np.isnan(lazyslide[~first]).all()
    # in unknown units: the pattern of the tool on the scale of the measured values
    in_r = pd.DataFrame(spots.table.layers["in_r"], own.index[:-5], list(own))
    assert in_r.iloc[:, 0].isna().all()
    for rows in (first, ~first):
        for gene in list(own)[1:]:
            drawn, truth = in_r[gene][rows], measured[gene][rows]
            assert np.corrcoef(drawn, own[gene].iloc[:-5][rows])[0, 1] == pytest.approx(1)
            assert drawn.mean() == pytest.approx(truth.mean(), abs=1e-4)
            assert drawn.std() == pytest.approx(truth.std(), rel=1e-3)
    maps = _maps.draw_maps(spots, scores, None)
    assert maps.methods == TABLES
    stp.report.write_html(sdata, scores, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The units of in_r are unknown" in page


def test_scores_of_other_tables_are_refused(sdata, tmp_path):
    scores = stp.tl.evaluate(sdata, TABLES)
    path = tmp_path / "report.html"
    sdata["predicted"] = sdata["predicted"][:, 1:].copy()
    changed = stp.tl.evaluate(sdata, ["predicted"])
    del sdata.tables["in_r"]
    with pytest.raises(KeyError, match="no 'in_r'"):
        stp.report.write_html(sdata, scores, path)
    sdata["predicted"] = sdata["predicted"][:, 1:].copy()
    with pytest.raises(ValueError, match="scores are of other tables: they have the genes"):
        stp.report.write_html(sdata, changed, path)
    assert not path.exists()
