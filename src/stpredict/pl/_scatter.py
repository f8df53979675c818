"""Predicted against measured values of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps

from stpredict import _validate, metrics
from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _scores
from stpredict.pl._drawing._pairs import paired_sections, units_of
from stpredict.pl._drawing._section import section_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.pl._drawing._pairs import PairedSection

#: New axes are arranged in rows of at most this number.
_N_COLUMNS = 4
#: Side of the axes of a gene, in inches.
_SIDE = 3.4
#: More spots are drawn as pixels in vector graphics.
_MANY_SPOTS = 1000


@checked
def scatter(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    section: str | Sequence[str] | None = None,
    method: str | None = None,
    table_name: str = "table",
    key: str = "predicted",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw predicted against measured values, one panel per gene and one dot per spot.

    Both axes have the same scale, and the line is the identity. Predictions of noisy genes vary
    less than the measured values, so that their dots are flatter than the line. Each section has
    its colour, and its PCC in the legend. Sections that were in training are marked, and spots
    whose measured values were used in their prediction are left out.

    Parameters
    ----------
    sdata
        Sections with measured expression, and predictions of :func:`stpredict.tl.predict` or
        :func:`stpredict.tl.cross_validate`.
    genes
        Name of a predicted gene, or several.
    section
        Name of a section, or several; by default all.
    method
        Method of a cross-validation; required if there are several.
    table_name, key
        Table with the measured values, and table with the predictions (``"out_of_fold"`` for those
        of a cross-validation).
    axes, save
        Axes to draw on, one per gene, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array (n_genes,) of :class:`matplotlib.axes.Axes`.

    Raises
    ------
    KeyError
        If a table, a gene, a method or measured values are missing.
    ValueError
        If there is no such section, a gene is repeated, one of several methods must be named, the
        measured layer has other units than the predictions, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=600)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata, "texture", n_subtiles=1)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001", "null_001"], context="spot")
    >>> stp.tl.predict(sdata, model)
    >>> stp.pl.scatter(sdata, ["morphology_001", "null_001"]).shape
    (2,)
    """
    genes = _validate.name_list("genes", [genes] if isinstance(genes, str) else genes)
    opened, measured = open_table(sdata, key), open_table(sdata, table_name).table
    names = section_names(opened, section)
    parts = paired_sections(opened, genes, names, measured_table=measured, method=method)
    shown = _axes_of_genes(axes, len(genes))
    units = _axes.plain(units_of(opened.table))
    for column, (ax, gene) in enumerate(zip(shown, genes, strict=True)):
        ax.axline((0, 0), slope=1, color=_scores.REFERENCE, linewidth=0.8, zorder=1)
        for place, part in enumerate(parts):
            _draw_section(ax, part, column, colormaps["tab10"](place % 10))
        _share_limits(ax, [values[:, column] for part in parts for values in part.values])
        _scores.set_title(ax, gene, leaky=any(part.leaky for part in parts))
        ax.set(xlabel=f"measured: {units}", ylabel="predicted", aspect="equal")
        ax.legend(loc="upper left", frameon=False, fontsize="small", handletextpad=0.2)
        ax.spines[["top", "right"]].set_visible(False)
    return _axes.finish(shown, save)


def _axes_of_genes(axes: _axes.AxesLike, n_genes: int) -> NDArray[Any]:
    """Axes of the caller, or new ones in rows, (n_genes,)."""
    if axes is not None:
        return np.asarray(_axes.axes_grid(axes, (0, 0), (1, n_genes))[0])
    n_columns = min(n_genes, _N_COLUMNS)
    n_rows = -(-n_genes // n_columns)
    grid = _axes.axes_grid(None, (_SIDE * n_columns, _SIDE * n_rows), (n_rows, n_columns)).ravel()
    for ax in grid[n_genes:]:
        ax.set_axis_off()
    return np.asarray(grid[:n_genes])


def _draw_section(ax: Axes, part: PairedSection, column: int, color: Any) -> None:
    """Draw the spots of a section, with their PCC in the legend."""
    measured, predicted = part.measured[:, column], part.predicted[:, column]
    note = "not predicted"  # in folds that did not select the gene
    if np.isfinite(predicted).all() and len(predicted) > 1:
        note = f"PCC {metrics.pcc(measured[:, None], predicted[:, None])[0]:.2f}"
    label = f"{part.section}: {note}{part.note}"
    many = len(measured) > _MANY_SPOTS
    ax.scatter(measured, predicted, s=4 if many else 10, color=color, alpha=0.6, linewidths=0,
               label=_axes.plain(label), rasterized=many)  # fmt: skip


def _share_limits(ax: Axes, values: Sequence[NDArray[np.float64]]) -> None:
    """Set the same limits on both axes, with a margin."""
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.5
    ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
