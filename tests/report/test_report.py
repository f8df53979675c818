"""The page as it is written: what it says, what it holds, and what is refused."""

from __future__ import annotations

import base64
import functools
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import stpredict as stp
from stpredict._sdata import _sections
from stpredict.report import _maps, _page, _tables
from stpredict.report._reliable import reliable

EVIL = "</script><img src=x onerror=document.title='run'>"


class Page(HTMLParser):
    """Tags with their attributes, text by the tag that it stands in."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_data(self, text):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(text)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def data_of(page):
    return json.loads(next(text for text in page.texts["script"] if text.startswith("{")))


@pytest.fixture
def write(found, tmp_path):
    def write(result=found.result, **options):
        place = tmp_path / "report.html"
        assert stp.report.write_html(found.sdata, result, place, **options) is None
        return place.read_text(encoding="utf-8")

    return write


def test_all_lies_in_the_one_file(write):
    page = Page(write())
    outside = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href") and not value.startswith("data:")
    ]
    assert outside == []
    assert not page.of("link")
    (policy,) = [tag["content"] for tag in page.of("meta") if "http-equiv" in tag]
    assert policy.startswith("default-src 'none'")


def test_names_are_text_and_never_markup(write):
    text = write()
    page = Page(text)
    assert [tag["src"][:11] for tag in page.of("img")] == ["data:image/"] * 3
    assert len(page.of("script")) == 2
    assert EVIL in data_of(page)["genes"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text  # the traceback


def test_the_top_says_how_the_scores_came_about(write):
    text = write()
    for words in ("Leave one section out.", "2026-01-31", "stpredict: 0.1.0", "S1, S2"):
        assert words in text
    assert "LEAKY" not in text


def test_scores_of_a_leak_are_told_as_such_everywhere(found, write):
    text = write(replace(found.result, leaky=True, protocol="LEAKY: as asked."))
    assert "<title>LEAKY: " in text
    for caption in re.findall(r"<caption>.*?</caption>|<h[1-4]>.*?</h[1-4]>", text, re.DOTALL):
        assert 'class="leaky">LEAKY' in caption or "failures" in caption


def test_tables_have_the_means_of_the_result(found):
    summary = _tables.summary(found.result)
    assert [row.name for row in summary.rows] == [
        "ridge", "trees", "training mean", "tuned ridge", "noise ceiling",
    ]  # fmt: skip
    assert summary.rows[0].cells[0].text == f"{found.result.summary().loc['ridge', 'pcc']:.3f}"
    assert summary.rows[1].cells[-1].text == "1 of 2"
    by_section = {row.name: row for row in _tables.by_section(found.result).rows}
    assert [cell.text for cell in by_section["trees"].cells] == ["0.080", "failed", "0.080"]
    assert by_section["ridge"].kind == "method"
    assert by_section["noise ceiling"].kind == "ceiling"


def test_a_method_that_failed_everywhere_keeps_its_row(found):
    scores = found.result.scores
    result = replace(found.result, scores=scores[scores["method"] != "trees"])
    assert _tables.summary(result).rows[1].cells[0].text == "failed"
    assert [row.name for row in _tables.by_section(result).rows][:2] == ["ridge", "trees"]


def test_genes_come_by_falling_score_with_what_bounds_them(found):
    genes = found.sdata.tables["out_of_fold"].var_names
    table = _tables.genes(found.result, pd.DataFrame({"ridge": True, "trees": False}, genes))
    assert [label for label, _ in table.columns] == [
        "ridge", "trees", "tuned ridge", "noise ceiling", "spatial null", "reliable",
    ]  # fmt: skip
    assert [row.name for row in table.rows] == ["ERBB2", EVIL, "CD74", "FASN", "MUC1"]
    assert [cell.text for cell in table.rows[1].cells] == [
        "0.450", "0.250", "0.350", "0.850", "0.020", "1 of 2",
    ]  # fmt: skip


def test_what_is_reliable_is_decided_against_nulls(found):
    table = found.sdata.tables["out_of_fold"]
    random = np.random.default_rng(1)
    table.layers["ridge"][:, 1] = random.normal(size=table.n_obs)  # tells nothing
    sections = _sections.sections(found.sdata, table)
    known = reliable(found.result, table, sections)
    assert list(known.columns) == ["ridge", "trees"]
    assert not known["ridge"].iloc[1]
    assert known["ridge"].sum() >= 2
    assert reliable(replace(found.result, leaky=True), table, sections) is None
    table.obs["fold"] = "all"
    assert reliable(found.result, table, sections) is None


def test_maps_hold_what_was_measured_and_predicted(found, write):
    data = data_of(Page(write()))
    table = found.sdata.tables["out_of_fold"]
    scales, encoded = data["maps"]["CD74"]
    levels = np.frombuffer(base64.b64decode(encoded), np.uint8)
    assert len(levels) == 4 * table.n_obs
    rows = (table.obs["region"] == "S1").to_numpy()
    low, high = scales[0]
    for number, values in enumerate((table.X, table.layers["ridge"])):
        part = levels[number * rows.sum() : (number + 1) * rows.sum()]
        wanted = np.clip(values[rows, 2], low, high)
        np.testing.assert_allclose(low + part / 254 * (high - low), wanted, atol=(high - low) / 400)
    failed = levels[4 * rows.sum() :][2 * (~rows).sum() : 3 * (~rows).sum()]
    assert (failed == _maps.MISSING).all()


def test_a_gene_that_does_not_vary_has_a_scale():
    levels, low, high = _maps.quantise(np.zeros((2, 5, 1), dtype=np.float32))
    assert (levels == 0).all()
    assert (low, high) == (0, 1)
    measured, predicted = np.zeros((5, 1)), np.linspace(0, 2, 5)[:, None]
    levels, _, high = _maps.quantise(np.stack([measured, predicted]).astype(np.float32))
    assert high == 2
    assert levels[1, :, 0].tolist() == [0, 64, 127, 190, 254]


def test_a_gene_that_was_not_predicted_in_a_fold_is_missing_there():
    series = np.full((2, 5, 2), np.nan, dtype=np.float32)
    series[:, :, 1] = np.arange(5)
    levels, low, high = _maps.quantise(series)
    assert (levels[:, :, 0] == _maps.MISSING).all()
    assert np.isfinite([low, high]).all()
    assert (levels[:, :, 1] < _maps.MISSING).all()


def test_a_sentence_tells_where_each_method_stands(found, write):
    sentences = _tables.differences(found.result)
    assert [each.split(" = ")[0] for each in sentences] == [
        "ridge - tuned_ridge", "trees - tuned_ridge",
    ]  # fmt: skip
    assert "ridge - tuned_ridge = +0.100" in write()


def test_spots_lie_on_the_picture(found):
    for section in _sections.sections(found.sdata, found.sdata.tables["out_of_fold"]):
        tissue = _maps.tissue(section)
        assert max(tissue.width, tissue.height) <= 560
        assert 0 < min(tissue.x) < max(tissue.x) < tissue.width
        assert 0 < min(tissue.y) < max(tissue.y) < tissue.height
        # distances between spots keep their proportions
        moved = np.column_stack([tissue.x, tissue.y]) - (tissue.x[0], tissue.y[0])
        true = section.centers_um - section.centers_um[0]
        np.testing.assert_allclose(moved, true * (np.ptp(tissue.x) / np.ptp(true[:, 0])), atol=1)


def test_some_genes_are_drawn_and_all_are_listed(write):
    text = write(genes=["FASN"])
    data = data_of(Page(text))
    assert list(data["maps"]) == ["FASN"]
    assert text.count('class="gene"') == 5


def test_the_best_genes_are_drawn_where_all_are_too_many(found, write, monkeypatch):
    monkeypatch.setattr(_maps, "_MOST_BYTES", 2 * 4 * found.sdata.tables["table"].n_obs)
    assert list(data_of(Page(write()))["maps"]) == ["ERBB2", EVIL]


def test_a_report_is_replaced_and_nothing_else(found, tmp_path):
    place = tmp_path / "report.html"
    stp.report.write_html(found.sdata, found.result, place)
    stp.report.write_html(found.sdata, found.result, str(place), genes=["ERBB2"])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    place.write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is no report of stpredict"):
        stp.report.write_html(found.sdata, found.result, place)
    assert place.read_text() == "mine"


def test_what_was_there_stays_when_writing_fails(found, tmp_path, monkeypatch):
    place = tmp_path / "report.html"
    stp.report.write_html(found.sdata, found.result, place)
    before = place.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space left"):
        stp.report.write_html(found.sdata, found.result, place)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert place.read_bytes() == before


def other_methods(found):
    return {"result": replace(found.result, methods=("ridge", "cnn"))}


def without_the_layer(found):
    del found.sdata.tables["out_of_fold"].layers["ridge"]
    return {}


def without_the_table(found):
    del found.sdata.tables["out_of_fold"]
    return {}


def other_protocol(found):
    known = found.sdata.tables["out_of_fold"].uns["stpredict"]["cross_validate"]
    known["protocol"] = "LEAKY: as asked."
    return {}


def other_section(found):
    return {"result": replace(found.result, scores=found.result.scores.replace("S2", "S9"))}


def other_gene(found):
    return {"result": replace(found.result, scores=found.result.scores.replace("MUC1", "MUC2"))}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda _: {"result": {}}, TypeError, "expected the result of stp.tl.cross_validate"),
        (lambda _: {"sdata": None}, TypeError, "expected a SpatialData object"),
        (without_the_table, KeyError, r"no tables\['out_of_fold'\]; tables: table"),
        (other_methods, ValueError, "result has the methods ridge, cnn, the table ridge, trees"),
        (without_the_layer, ValueError, "result has the methods ridge, the table trees"),
        (other_protocol, ValueError, "the protocol Leave one section out., the table LEAKY"),
        (other_section, ValueError, "result has the sections S9, the table S1, S2"),
        (other_gene, ValueError, "result has the genes MUC2, the table ERBB2"),
        (lambda _: {"genes": "ERBB2"}, TypeError, "give a list"),
        (lambda _: {"genes": []}, ValueError, "genes= is empty"),
        (lambda _: {"genes": ["ERBB3"]}, KeyError, "1 of 1 genes are not in the table: ERBB3"),
        (lambda _: {"folder": "none"}, FileNotFoundError, "there is no folder"),
        (lambda _: {"name": "."}, FileExistsError, "exists and is no report"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(found, tmp_path, change, error, message):
    options = change(found)
    place = tmp_path / options.pop("folder", "") / options.pop("name", "report.html")
    given = {"result": found.result, "sdata": found.sdata} | options
    with pytest.raises(error, match=message):
        stp.report.write_html(given.pop("sdata"), given.pop("result"), place, **given)
    assert list(tmp_path.iterdir()) == []


def test_what_cross_validate_leaves_makes_a_page(tmp_path):
    def colour(tiles):
        return tiles.mean((-2, -1))

    sdata = stp.datasets.phantom(
        3, size_px=600, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=2, n_null=2
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=3)  # others in every fold
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour")
    result = stp.tl.cross_validate(sdata, {"ridge": ridge})
    place = tmp_path / "report.html"
    stp.report.write_html(sdata, result, place)
    text = place.read_text(encoding="utf-8")
    assert result.protocol in html.unescape(text)
    assert set(data_of(Page(text))["maps"]) == set(sdata.tables["out_of_fold"].var_names)


def test_settings_that_are_not_there_are_not_told(found):
    assert _page._settings(replace(found.result, settings={})) == {}
