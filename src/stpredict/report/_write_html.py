"""Write the page of a cross-validation."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._log import tell
from stpredict._sdata import _sections
from stpredict.report import _maps, _page
from stpredict.report._match import out_of_fold
from stpredict.report._reliable import reliable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.results import CrossValidation


def write_html(
    sdata: SpatialData,
    result: CrossValidation,
    path: str | Path,
    *,
    genes: Sequence[str] | None = None,
) -> None:
    """Write one HTML page of a cross-validation, which needs nothing but a browser.

    At the top the protocol and the versions; then the scores of all methods beside their nulls and
    the noise ceiling, section by section and gene by gene. The table of genes sorts and searches;
    a gene that is chosen there is drawn on the tissue as measured and as each method predicted it
    without having seen the section, all on one colour scale. On which genes a method is reliable,
    `uncertainty.reliable` decides. Images, scores and predictions lie in the file itself: it can be
    sent by mail, and asks nothing of the network. Of a split that leaks, every score stands beside
    the word LEAKY.

    Parameters
    ----------
    sdata
        Sections that `tl.cross_validate` was called with, with its ``tables["out_of_fold"]``.
    result
        What `tl.cross_validate` returned.
    path
        File to write, such as ``"report.html"``. A report that is there already is replaced; until
        the new one is complete, it stays.
    genes
        Genes to draw on the tissue; by default all, or those predicted best where all would take
        more than 24 MiB. The table lists all of them either way.

    Raises
    ------
    TypeError
        If ``result`` is no cross-validation, ``sdata`` no SpatialData, or ``genes`` a string.
    KeyError
        If there is no ``tables["out_of_fold"]``, or no such gene in it.
    ValueError
        If the table is of another cross-validation (methods, protocol, sections or genes differ),
        or ``genes`` is empty.
    FileNotFoundError
        If the folder to write into does not exist.
    FileExistsError
        If something else than a report is there.

    Examples
    --------
    >>> import stpredict as stp
    >>> result = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})  # doctest: +SKIP
    >>> stp.report.write_html(sdata, result, "report.html")  # doctest: +SKIP
    """
    table = out_of_fold(result, sdata)
    if isinstance(genes, str):
        raise TypeError(f"genes={genes!r} is one name; give a list: [{genes!r}]")
    if genes is not None and len(genes) == 0:
        raise ValueError("genes= is empty; leave it out to draw all")
    if genes is not None:
        _validate.present(list(genes), table.var_names)
    place = _place(path)
    sections = _sections.sections(sdata, table)
    drawn = _maps.draw(table, sections, result, genes)
    text = _page.render(result, table, drawn, reliable(result, table, sections))
    _write(place, text)
    tell(
        f"{place}: {len(text.encode()) / 2**20:.1f} MiB, {table.n_vars} genes, "
        f"{len(drawn.genes)} of them drawn on {len(drawn.tissues)} sections"
    )


def _place(path: str | Path) -> Path:
    """Where a report may be written."""
    place = Path(path)
    if not place.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(place.parent)!r} to write {place.name!r} into: make it first"
        )
    if place.is_dir() or (place.exists() and not _page.is_report(place)):
        raise FileExistsError(f"{place} exists and is no report of stpredict; choose another path")
    return place


def _write(place: Path, text: str) -> None:
    """Write beside, then rename, so that no half of a page is ever there."""
    descriptor, beside = tempfile.mkstemp(prefix=f".{place.name}-", dir=place.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(beside).chmod(0o644)  # mkstemp's files are private
        Path(beside).replace(place)
    finally:
        Path(beside).unlink(missing_ok=True)
