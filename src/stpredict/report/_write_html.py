"""HTML page of a cross-validation or an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._atomic import replaced
from stpredict._log import info
from stpredict.report import _maps, _page, _tables
from stpredict.report._evaluated import open_evaluated, without_units
from stpredict.report._match import open_out_of_fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.results import Scores


@checked
def write_html(
    sdata: SpatialData,
    scores: Scores,
    path: str | Path,
    *,
    genes: Sequence[str] | None = None,
    table_name: str = "table",
    key: str = "out_of_fold",
) -> None:
    """Write the results of a cross-validation or an evaluation as one HTML page.

    The page has the protocol, the scores with nulls, baselines and noise ceiling, by section and by
    gene, and the failures. A selected gene is drawn on the tissue, as measured and as predicted by
    each method. If the split leaks, every score is marked LEAKY. The file contains all images and
    values, and needs no network.

    For cross-validations, predictions are out of fold, and `uncertainty.reliable` decides on which
    genes a method is reliable. For evaluations, tables of predictions are shown side by side with
    their differences; those in unknown units are drawn on the scale of the measured values.

    Parameters
    ----------
    sdata
        Sections that `tl.cross_validate` or `tl.evaluate` was called with.
    scores
        Their scores.
    path
        File to write; an existing report is replaced once the new one is complete.
    genes
        Genes to draw on the tissue; by default all, or the best predicted ones if all would take
        more than 24 MiB. The table always lists all genes.
    table_name, key
        Table with the measured expression, and table with the out-of-fold predictions of a
        cross-validation.

    Raises
    ------
    TypeError
        If ``scores`` are no scores, ``sdata`` is no SpatialData, or ``genes`` is a string.
    KeyError
        If there is no such table, or no such gene in it.
    ValueError
        If the tables are others than those that were scored, or ``genes`` is empty or has a
        gene twice.
    FileNotFoundError, FileExistsError
        If the folder does not exist, or the file exists and is not a report.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata, "texture")
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> path = Path(tempfile.mkdtemp()) / "report.html"
    >>> stp.report.write_html(sdata, scores, path)
    >>> path.exists()
    True
    """
    if scores.protocol.group_kind is None:
        spots = open_evaluated(sdata, scores, table_name)
    else:
        spots = open_out_of_fold(sdata, scores, table_name, key)
    if genes is not None:
        genes = _validate.name_list("genes", genes)
        _validate.present(genes, spots.table.var_names)
    path = _page.writable(path)
    maps = _maps.draw_maps(spots, scores, genes)
    rescaled = without_units(sdata, scores)
    text = _page.render(scores, maps, _tables.reliable_genes(spots, scores), rescaled)
    with replaced(path) as file:
        file.write(text)
    info(
        f"{path}: {len(text.encode()) / 2**20:.1f} MiB, {spots.table.n_vars} genes, "
        f"{len(maps.genes)} of them drawn on {len(maps.sections)} sections"
    )
