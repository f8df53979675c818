"""The page in a browser: sorting, searching and selecting genes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import stpredict as stp

EVIL = "</script><img src=x onerror=document.title='run'>"
METHODS = ("ridge", "trees")
#: Metrics that `tl.evaluate` computes next to PCC and its nulls.
METRICS = (
    "spearman", "rmse", "mae", "explained_variance", "variance_ratio", "auc", "ssim",
    "morans_i_difference", "pcc_per_spot", "spearman_per_spot", "gene_correlation", "ari", "nmi",
)  # fmt: skip
CANVASES = "[...document.querySelectorAll('canvas[data-series]')].map(each => each.toDataURL())"


@pytest.fixture
def visit(browser, validated, tmp_path):
    """Open the report of scores; messages, errors and requests of the page fail the test."""
    pages, messages = [], []

    def visit(scores=validated.scores, *, theme="light", width=1280, **options):
        path = tmp_path / "report.html"
        stp.report.write_html(validated.sdata, scores, path, **options)
        page = browser.new_page(color_scheme=theme, viewport={"width": width, "height": 800})
        pages.append(page)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: messages.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#gene:not([hidden])")
        return page

    yield visit
    unexpected = [each for each in messages if not each.startswith("data:image/")]
    assert unexpected == [page.url for page in pages]
    for page in pages:
        page.close()


def genes(page):
    return page.locator("#gene-table tbody tr:visible th").all_inner_texts()


def test_a_click_on_a_heading_sorts_and_a_second_reverses(visit):
    page = visit()
    assert genes(page)[0] == "ERBB2"
    head = page.locator("#gene-table thead th", has_text="trees")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert genes(page) == [EVIL, "FASN", "ERBB2", "CD74", "MUC1"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert genes(page) == ["MUC1", "CD74", "ERBB2", "FASN", EVIL]
    page.locator("#gene-table thead button").first.press("Enter")  # by keyboard
    assert genes(page) == [EVIL, "CD74", "ERBB2", "FASN", "MUC1"]
    assert page.locator("[aria-sort]:not([aria-sort=none])").count() == 1


def test_the_search_shows_matching_genes(visit):
    page = visit()
    page.get_by_label("Search").fill("erb")
    assert genes(page) == ["ERBB2"]
    assert page.locator("#n-matching").inner_text() == "1 of 5 genes"
    page.get_by_label("Search").fill("m")
    page.get_by_label("Search").press("Enter")
    assert page.locator("#gene-name").inner_text() == EVIL  # the first that has an m
    page.get_by_label("Search").fill("")
    assert len(genes(page)) == 5


def test_a_selected_gene_is_drawn_on_the_tissue(visit):
    page = visit()
    canvases = {}
    for gene in ("ERBB2", "MUC1"):
        button = page.get_by_role("button", name=gene)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.locator("#gene-name").inner_text() == gene
        canvases[gene] = page.evaluate(CANVASES)
    # two sections, each as measured and as predicted by two methods and the ridge
    assert len(canvases["ERBB2"]) == 8
    same = [one == other for one, other in zip(*canvases.values(), strict=True)]
    # the trees failed in S2, where both are the empty picture
    assert same == [False] * 6 + [True, False]
    assert len(set(canvases["ERBB2"])) == 8
    colours = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, 400, 400).data).size"
    assert page.locator("canvas[data-series]").first.evaluate(colours) > 20
    assert page.locator("[data-section='1'] figure").nth(3).inner_text() == "trees\nnot predicted"


def test_scores_of_the_gene_are_listed_with_their_nulls(visit):
    page = visit()
    page.get_by_role("button", name="CD74").click()
    rows = [row.split("\t") for row in page.locator("#gene-scores tr").all_inner_texts()]
    assert rows[0] == ["", "S1", "S2", "mean", "spatial null", "reliable"]
    assert rows[1][:5] == ["ridge", "0.400", "0.400", "0.400", "0.020"]
    assert rows[1][5] in ("yes", "no")
    assert rows[2][:4] == ["trees", "0.000", "–", "0.000"]
    assert rows[-1][:4] == ["noise ceiling", "0.800", "0.800", "0.800"]


def test_pointing_at_a_spot_shows_its_values(visit, validated):
    page = visit()
    spot = page.evaluate(
        "(({x, y}) => [x[0], y[0]])(JSON.parse(document.getElementById('data').text).spots[0])"
    )
    canvas = page.locator("[data-section='0'] canvas[data-series='1']")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    scale = box["width"] / int(canvas.get_attribute("width"))
    captions = page.locator("[data-section='0'] .pcc")
    before = captions.all_inner_texts()
    page.mouse.move(box["x"] + spot[0] * scale, box["y"] + spot[1] * scale)
    table = validated.sdata.tables["out_of_fold"]
    values = [float(text.lstrip("≤≥ ")) for text in captions.all_inner_texts()]
    low, high = np.percentile(table.X[(table.obs["region"] == "S1").to_numpy(), 0], [1, 99])
    expected = [table.X[0, 0], *(table.layers[name][0, 0] for name in (*METHODS, "tuned_ridge"))]
    np.testing.assert_allclose(values, np.clip(expected, low, high), atol=0.02 + (high - low) / 400)
    page.mouse.move(1, 1)
    assert captions.all_inner_texts() == before


def test_arrow_keys_move_between_genes(visit):
    page = visit()
    page.get_by_role("button", name="ERBB2").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#gene-name").inner_text() == "CD74"


def test_a_name_that_looks_like_markup_is_not_run(visit):
    page = visit()
    page.get_by_role("button", name="onerror").click()
    assert page.locator("#gene-name").inner_text() == EVIL
    assert page.title() == "Cross-validation of ridge, trees"
    assert page.locator("img").count() == 3  # the figure, the H&E of two sections
    page.locator("details summary").click()
    assert "<script>alert(1)</script>" in page.locator("details pre").inner_text()


def test_a_gene_without_maps_has_a_note(visit):
    page = visit(genes=["CD74"])
    assert page.locator("#not-drawn").is_visible()
    assert not page.locator("#maps").is_visible()
    page.get_by_role("button", name="CD74").click()
    assert page.locator("#maps").is_visible()


def test_a_leak_is_marked_at_every_score(visit, validated):
    protocol = replace(validated.scores.protocol, leaking_sections=("S1",))
    page = visit(replace(validated.scores, protocol=protocol))
    for selector in ("h1", "#scores h2", "#genes h2", "#gene h3", ".tissue h4"):
        assert page.locator(f"{selector} .leaky").first.is_visible()
    assert page.locator("caption").count() == page.locator("caption .leaky").count() == 4
    colour = "each => getComputedStyle(each).backgroundColor"
    assert page.locator("h1 .leaky").evaluate(colour) == "rgb(193, 18, 31)"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_theme_and_fits_narrow_screens(visit, theme):
    page = visit(theme=theme, width=380)
    channels = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
    assert (sum(map(int, channels)) > 384) == (theme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


@pytest.mark.parametrize("width", [1280, 1440])
def test_no_column_is_cut_off_on_usual_screens(visit, validated, width):
    scores = validated.scores
    first = scores.table[scores.table["metric"] == "pcc"]
    table = pd.concat([scores.table, *(first.assign(metric=name) for name in METRICS)])
    keys = ["method", "section", "gene", "metric"]
    page = visit(replace(scores, table=table.drop_duplicates(keys)), width=width)
    assert page.locator("table.scores.wide thead th").count() > 15
    for region in page.locator(".scroll:has(table.scores)").all():
        assert region.evaluate("each => each.scrollWidth - each.clientWidth") <= 0


def test_the_page_is_not_wider_than_the_paper(visit):
    page = visit(width=718)  # A4 with the margins of the browser
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
