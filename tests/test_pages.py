"""Pages of the documentation: the reference is complete, and, where built, nothing is cut off."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

API = Path(__file__).parents[1] / "docs" / "api"
HTML = Path(__file__).parents[1] / "docs" / "_build" / "html"

#: Elements of a page that are wider than their box, with the first words in them.
CLIPPED = """() => [...document.querySelectorAll('.bd-article *, .bd-sidebar-primary *')]
  .filter(each => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1
    && !['inline', 'none'].includes(getComputedStyle(each).display)
    && getComputedStyle(each).overflowX != 'visible')
  .map(each => `${each.tagName} ${each.className}: ${each.textContent.trim().slice(0, 60)}`)"""

#: Blocks of code with lines that are too long for the column, which wraps them.
WRAPPED = """() => [...document.querySelectorAll('.bd-article .highlight pre')]
  .filter(each => {
    const style = getComputedStyle(each), lines = each.textContent.trimEnd().split('\\n').length;
    const padding = parseFloat(style.paddingTop) + parseFloat(style.paddingBottom);
    return !each.closest('.cell_output')
      && each.clientHeight - padding > (lines + 0.5) * parseFloat(style.lineHeight);
  })
  .map(each => `wrapped code: ${each.textContent.trim().slice(0, 60)}`)"""


@pytest.fixture(scope="module")
def pages():
    """The pages that people wrote."""
    paths = [*HTML.glob("*.html"), *(each for each in HTML.glob("*/*.html") if is_written(each))]
    if not paths:
        pytest.skip("no documentation in docs/_build/html; build it with: nox -s docs")
    sources = [*HTML.parents[1].glob("*.*"), *HTML.parents[1].glob("[a-z]*/*.*")]
    if max(path.stat().st_mtime for path in sources) > (HTML / "index.html").stat().st_mtime:
        pytest.skip("the documentation in docs/_build/html is older than its sources")
    return sorted(paths)


def is_written(path):
    return path.parent.name != "generated" and not path.parent.name.startswith("_")


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen(browser, pages, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems = []
    for path in pages:
        page.goto(path.as_uri())
        page_width = page.evaluate("document.documentElement.scrollWidth")
        if page_width > width:
            problems.append(f"{path.name}: {page_width} pixels wide")
        clipped = page.evaluate(CLIPPED)
        if width >= 768:
            clipped += page.evaluate(WRAPPED)
        else:  # wide tables scroll on phones
            tables = ("DIV pst-scrollable-table", "DIV output text_html")
            clipped = [each for each in clipped if not each.startswith(tables)]
        problems += [f"{path.name}: {each}" for each in clipped]
    page.close()
    assert not problems, "\n".join(problems)


@pytest.mark.skipif(not API.is_dir(), reason="no documentation in a source distribution")
@pytest.mark.parametrize("page", sorted(API.glob("*.md")), ids=lambda page: page.stem)
def test_the_reference_lists_every_function_and_class(page):
    if page.stem == "settings":  # an object
        return
    name = "nn.losses" if page.stem == "losses" else page.stem
    module = importlib.import_module(f"stpredict.{name}")
    names = {f"{name}.{each}" for each in module.__all__ if callable(getattr(module, each))}
    listed = re.findall(r"^   ([a-z][\w.]+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(listed) == names
