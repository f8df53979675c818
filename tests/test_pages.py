"""Pages of the documentation in a browser, where they were built: nothing is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

HTML = Path(__file__).parents[1] / "docs" / "_build" / "html"

#: Elements of a page that are wider than their box, with the first words in them.
CLIPPED = """() => [...document.querySelectorAll('.bd-article *, .bd-sidebar-primary *')]
  .filter(each => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1
    && !['inline', 'none'].includes(getComputedStyle(each).display)
    && getComputedStyle(each).overflowX != 'visible')
  .map(each => `${each.tagName} ${each.className}: ${each.textContent.trim().slice(0, 60)}`)"""


@pytest.fixture(scope="module")
def pages():
    """The pages that people wrote."""
    paths = [*HTML.glob("*.html"), *(each for each in HTML.glob("*/*.html") if is_written(each))]
    if not paths:
        pytest.skip("no documentation in docs/_build/html; build it with: nox -s docs")
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
        if width < 768:  # wide tables scroll on phones
            clipped = [each for each in clipped if "scrollable-table" not in each]
        problems += [f"{path.name}: {each}" for each in clipped]
    page.close()
    assert not problems, "\n".join(problems)
