"""Content of the page, and input that is refused."""

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
from stpredict._sdata._spot_table import open_table
from stpredict.report import _maps, _tables, _words

EVIL = "</script><img src=x onerror=document.title='run'>"


class Page(HTMLParser):
    """Tags with their attributes, and text by tag."""

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
def write(validated, tmp_path):
    def write(scores=validated.scores, **options):
        path = tmp_path / "report.html"
        assert stp.report.write_html(validated.sdata, scores, path, **options) is None
        return path.read_text(encoding="utf-8")

    return write


def test_the_page_loads_nothing_from_outside(write):
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


def test_names_are_inserted_as_text(write):
    text = write()
    page = Page(text)
    assert [tag["src"][:11] for tag in page.of("img")] == ["data:image/"] * 3
    assert len(page.of("script")) == 2
    assert EVIL in data_of(page)["genes"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text  # the traceback


def leaky(scores):
    return replace(scores, protocol=replace(scores.protocol, leaking_sections=("S1",)))


def test_the_header_has_the_protocol(write):
    text = write()
    for words in ("Leave one section out", "2026-01-31", "stpredict: 0.1.0", "S1; S2"):
        assert words in text
    assert "LEAKY" not in text


def test_all_scores_of_a_leaky_split_are_marked(validated, write):
    text = write(leaky(validated.scores))
    assert "<title>LEAKY: " in text
    for caption in re.findall(r"<caption>.*?</caption>|<h[1-4]>.*?</h[1-4]>", text, re.DOTALL):
        assert 'class="leaky">LEAKY' in caption or "failures" in caption


def test_tables_have_the_means_of_the_scores(validated):
    summary = _tables.summary(validated.scores)
    assert [row.name for row in summary.rows] == [
        "ridge", "trees", "tuned ridge", "training mean", "noise ceiling",
    ]  # fmt: skip
    assert summary.rows[0].cells[0].text == f"{validated.scores.summary().loc['ridge', 'pcc']:.3f}"
    assert summary.rows[1].cells[-1].text == "1 of 2"
    by_section = {row.name: row for row in _tables.by_section(validated.scores).rows}
    assert [cell.text for cell in by_section["trees"].cells] == ["0.080", "failed", "0.080"]
    assert by_section["ridge"].kind == "method"
    assert by_section["noise ceiling"].kind == "ceiling"


def test_a_method_that_failed_everywhere_keeps_its_row(validated):
    table = validated.scores.table
    scores = replace(validated.scores, table=table[table["method"] != "trees"])
    assert _tables.summary(scores).rows[1].cells[0].text == "failed"
    assert [row.name for row in _tables.by_section(scores).rows][:2] == ["ridge", "trees"]


def test_genes_are_sorted_by_their_scores(validated):
    genes = validated.sdata.tables["out_of_fold"].var_names
    table = _tables.genes(validated.scores, pd.DataFrame({"ridge": True, "trees": False}, genes))
    assert [label for label, _ in table.columns] == [
        "ridge", "trees", "tuned ridge", "noise ceiling", "spatial null", "reliable",
    ]  # fmt: skip
    assert [row.name for row in table.rows] == ["ERBB2", EVIL, "CD74", "FASN", "MUC1"]
    assert [cell.text for cell in table.rows[1].cells] == [
        "0.450", "0.250", "0.350", "0.850", "0.020", "1 of 2",
    ]  # fmt: skip


def test_reliable_genes_beat_their_nulls(validated):
    table = validated.sdata.tables["out_of_fold"]
    random = np.random.default_rng(1)
    noise = random.normal(size=(table.n_obs, 2))
    table.layers["ridge"][:, 1] = noise[:, 0]  # uninformative
    table.layers["ridge"][:, 2] = table.X[:, 2] + 0.1 * noise[:, 1]
    spots = open_table(validated.sdata, "out_of_fold")
    reliable = _tables.reliable_genes(spots, validated.scores)
    assert list(reliable.columns) == ["ridge", "trees"]
    assert list(reliable["ridge"].iloc[1:3]) == [False, True]
    assert _tables.reliable_genes(spots, leaky(validated.scores)) is None
    table.obs["fold"] = "all"
    assert _tables.reliable_genes(spots, validated.scores) is None


def test_maps_contain_measured_and_predicted_values(validated, write):
    data = data_of(Page(write()))
    table = validated.sdata.tables["out_of_fold"]
    scales, encoded = data["maps"]["CD74"]
    levels = np.frombuffer(base64.b64decode(encoded), np.uint8)
    assert len(levels) == 4 * table.n_obs
    rows = (table.obs["region"] == "S1").to_numpy()
    low, high = scales[0]
    for number, values in enumerate((table.X, table.layers["ridge"])):
        part = levels[number * rows.sum() : (number + 1) * rows.sum()]
        expected = np.clip(values[rows, 2], low, high)
        np.testing.assert_allclose(
            low + part / 254 * (high - low), expected, atol=(high - low) / 400
        )
    failed = levels[4 * rows.sum() :][2 * (~rows).sum() : 3 * (~rows).sum()]
    assert (failed == _maps.NO_VALUE).all()


def test_a_constant_gene_has_a_scale():
    levels, low, high = _maps.quantize(np.zeros((2, 5, 1), dtype=np.float32))
    assert (levels == 0).all()
    assert (low, high) == (0, 1)
    measured, predicted = np.zeros((5, 1)), np.linspace(0, 2, 5)[:, None]
    levels, _, high = _maps.quantize(np.stack([measured, predicted]).astype(np.float32))
    assert high == 2
    assert levels[1, :, 0].tolist() == [0, 64, 127, 190, 254]


def test_a_gene_without_predictions_in_a_fold_has_no_values_there():
    series = np.full((2, 5, 2), np.nan, dtype=np.float32)
    series[:, :, 1] = np.arange(5)
    levels, low, high = _maps.quantize(series)
    assert (levels[:, :, 0] == _maps.NO_VALUE).all()
    assert np.isfinite([low, high]).all()
    assert (levels[:, :, 1] < _maps.NO_VALUE).all()


def test_each_method_is_compared_with_the_baselines(validated, write):
    sentences = _tables.differences(validated.scores)
    assert [each.split(" = ")[0] for each in sentences] == [
        "ridge - tuned_ridge", "trees - tuned_ridge",
    ]  # fmt: skip
    assert "ridge - tuned_ridge = +0.100" in write()


def test_spots_have_their_position_on_the_picture(validated):
    for section in open_table(validated.sdata, "out_of_fold").sections:
        picture = _maps.section_picture(section)
        assert max(picture.width, picture.height) <= 560
        assert 0 < min(picture.x) < max(picture.x) < picture.width
        assert 0 < min(picture.y) < max(picture.y) < picture.height
        # distances between spots keep their proportions
        moved = np.column_stack([picture.x, picture.y]) - (picture.x[0], picture.y[0])
        true = section.centers_um - section.centers_um[0]
        np.testing.assert_allclose(moved, true * (np.ptp(picture.x) / np.ptp(true[:, 0])), atol=1)


def test_given_genes_are_drawn_and_all_are_listed(write):
    text = write(genes=["FASN"])
    data = data_of(Page(text))
    assert list(data["maps"]) == ["FASN"]
    assert text.count('class="gene"') == 5


def test_the_best_genes_are_drawn_if_all_are_too_many(validated, write, monkeypatch):
    monkeypatch.setattr(_maps, "_MAX_BYTES", 2 * 4 * validated.sdata.tables["table"].n_obs)
    assert list(data_of(Page(write()))["maps"]) == ["ERBB2", EVIL]


def test_only_a_report_is_replaced(validated, tmp_path):
    path = tmp_path / "report.html"
    stp.report.write_html(validated.sdata, validated.scores, path)
    stp.report.write_html(validated.sdata, validated.scores, str(path), genes=["ERBB2"])
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not a report of stpredict"):
        stp.report.write_html(validated.sdata, validated.scores, path)
    assert path.read_text() == "mine"


def test_an_existing_report_stays_if_writing_fails(validated, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    stp.report.write_html(validated.sdata, validated.scores, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space left"):
        stp.report.write_html(validated.sdata, validated.scores, path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_bytes() == before


def other_methods(validated):
    return {"scores": replace(validated.scores, methods=("ridge", "cnn"))}


def without_the_layer(validated):
    del validated.sdata.tables["out_of_fold"].layers["ridge"]
    return {}


def without_the_table(validated):
    del validated.sdata.tables["out_of_fold"]
    return {}


def other_protocol(validated):
    record = validated.sdata.tables["out_of_fold"].uns["stpredict"]["cross_validate"]
    record["text"] = "LEAKY: sections S1 in both training and test."
    return {}


def other_section(validated):
    table = validated.scores.table.replace("S2", "S9")
    return {"scores": replace(validated.scores, table=table)}


def other_gene(validated):
    table = validated.scores.table.replace("MUC1", "MUC2")
    return {"scores": replace(validated.scores, table=table)}


def fewer_spots(validated):
    validated.sdata.tables["table"] = validated.sdata.tables["table"][3:].copy()
    return {}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda _: {"scores": {}}, TypeError, "scores must be a Scores, not dict"),
        (lambda _: {"sdata": None}, TypeError, "sdata must be a SpatialData"),
        (without_the_table, KeyError, "no 'out_of_fold'; available: table: run stp.tl.cross_val"),
        (
            other_methods,
            ValueError,
            "methods ridge, cnn, tuned_ridge, the table ridge, trees",
        ),
        (without_the_layer, ValueError, "scores have the methods ridge, the table trees"),
        (other_protocol, ValueError, "the protocol Leave one section out .*, the table LEAKY"),
        (other_section, ValueError, "scores have the sections S9, the table S1, S2"),
        (other_gene, ValueError, "scores have the genes MUC2, the table ERBB2"),
        (fewer_spots, ValueError, r"tables\['table'\] lacks 3 spots"),
        (lambda _: {"genes": "ERBB2"}, TypeError, "give a list"),
        (lambda _: {"genes": []}, ValueError, "genes= is empty"),
        (lambda _: {"genes": ["ERBB3"]}, KeyError, "1 of 1 genes are not in the table: ERBB3"),
        (lambda _: {"folder": "none"}, FileNotFoundError, "folder .* does not exist"),
        (lambda _: {"name": "."}, FileExistsError, "exists and is not a report"),
    ],
)
def test_bad_input_raises_before_anything_is_written(validated, tmp_path, change, error, message):
    options = change(validated)
    path = tmp_path / options.pop("folder", "") / options.pop("name", "report.html")
    sdata, scores = options.pop("sdata", validated.sdata), options.pop("scores", validated.scores)
    with pytest.raises(error, match=message):
        stp.report.write_html(sdata, scores, path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_real_cross_validation_gives_a_page(tmp_path):
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
    scores = stp.tl.cross_validate(sdata, {"ridge": ridge})
    path = tmp_path / "report.html"
    stp.report.write_html(sdata, scores, path)
    text = path.read_text(encoding="utf-8")
    for part in (scores.protocol.summary, *scores.protocol.notes):
        assert part in html.unescape(text)
    assert set(data_of(Page(text))["maps"]) == set(sdata.tables["out_of_fold"].var_names)


def test_unknown_facts_are_left_out(validated):
    facts = _words.facts(validated.scores)
    assert "seconds" not in facts
    assert facts["folds"] == "S1; S2"
