"""Whether intervals hold as many of the measured values as they promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from stpredict import _keys, _validate, uncertainty
from stpredict._sdata import _provenance, _sections
from stpredict.pl._drawing import _measured, _scores, _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

_LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
#: The level whose folds are drawn one by one.
_NAMED = 0.9
#: As many genes, and spots of a fold, tell what all of them do, in seconds.
_MOST_GENES, _MOST_SPOTS = 60, 1000
#: Panels of folds and sections reach at least this far below the level.
_REACH = 0.15


@dataclass(frozen=True)
class _Coverage:
    """Share of the measured values in their intervals, (n_names, n_genes), at one level."""

    level: float
    names: tuple[str, ...]
    of_genes: NDArray[np.floating[Any]]

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean over genes, NaN where nothing was predicted."""
        known = ~np.isnan(self.of_genes)
        n_known = known.sum(axis=1)
        total = np.where(known, self.of_genes, 0.0).sum(axis=1)
        return np.divide(total, n_known, out=np.full(len(total), np.nan), where=n_known > 0)


def calibration(
    sdata: SpatialData, *, method: str | None = None, axes: Sequence[Axes] | None = None
) -> NDArray[Any]:
    """Draw how many of the measured values lie in their intervals, against how many should.

    After a cross-validation (``tables["out_of_fold"]``), two panels: intervals at several levels
    that are made of the errors of all other folds, and their coverage in the fold, a pale line per
    fold, the mean over folds over it; and the folds one by one at 90 %. At most 60 genes, and 1,000
    spots of each fold, are taken, evenly over the table. With calibrated predictions of measured
    spots (``tables["predicted"]`` with ``layers["lower"]`` and ``layers["upper"]``), one panel: the
    coverage in each section at the calibrated level; sections that the model was trained on, whose
    coverage says nothing of new ones, are marked so.

    In panels of folds or sections, the dot is the mean over genes, thick and thin lines reach over
    50 and 90 % of the genes.

    Parameters
    ----------
    sdata
        Sections with one of the tables, or both.
    method
        Method of the cross-validation; needed where there are several.
    axes
        Axes to draw on, as many as there are panels: by default new ones.

    Returns
    -------
    Array of :class:`matplotlib.axes.Axes`, one per panel.

    Raises
    ------
    KeyError
        If there is neither table, or no such method.
    ValueError
        If there are several methods and none is named, the folds are too few or too small for
        intervals, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> result = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})  # doctest: +SKIP
    >>> axes = stp.pl.calibration(sdata)  # doctest: +SKIP
    """
    _sections.require_spatialdata(sdata)
    curve, title = _out_of_fold(sdata, method)
    sections = _calibrated(sdata)
    if not curve and sections is None:
        raise KeyError(
            f"there is no tables[{_keys.OUT_OF_FOLD!r}], and no tables[{_keys.PREDICTED!r}] with "
            f"layers[{_keys.LOWER!r}] and layers[{_keys.UPPER!r}] of spots and genes that were "
            f"measured; tables: {_validate.listing(sdata.tables)}: run stp.tl.cross_validate, or "
            "predict with a model of stp.tl.calibrate"
        )
    rows = [min(curve, key=lambda at: abs(at.level - _NAMED))] if curve else []
    rows += [] if sections is None else [sections]
    n_curves = 1 if curve else 0
    n = n_curves + len(rows)
    drawn = _new_axes(n, rows) if axes is None else _section.given_axes(axes, n)
    if curve:
        _draw_curve(drawn[0], curve, title)
    for ax, coverage in zip(drawn[n_curves:], rows, strict=True):
        level = f"{100 * coverage.level:g} % intervals"
        _draw_rows(ax, coverage, f"{level} of predictions" if coverage is sections else level)
    if curve and _leaky(sdata):
        for ax in drawn[:2]:
            _scores.mark_leaky(ax, ax.get_title())
    return drawn


def _leaky(sdata: SpatialData) -> bool:
    how = _provenance.recorded(sdata.tables[_keys.OUT_OF_FOLD], "cross_validate")
    return bool(how.get("leaky"))


def _new_axes(n: int, rows: list[_Coverage]) -> NDArray[Any]:
    height = max(3.9, 1.2 + 0.25 * max(len(coverage.names) for coverage in rows))
    _, made = plt.subplots(1, n, figsize=(4.4 * n, height), layout="constrained")
    return np.atleast_1d(np.asarray(made))


def _out_of_fold(sdata: SpatialData, method: str | None) -> tuple[list[_Coverage], str]:
    """Coverage in each fold at every level that there are rows enough for; what it is of."""
    if _keys.OUT_OF_FOLD not in sdata.tables:
        if method is not None:
            raise KeyError(
                f"there is no tables[{_keys.OUT_OF_FOLD!r}], which has method={method!r}: run "
                "stp.tl.cross_validate first"
            )
        return [], ""
    table = sdata.tables[_keys.OUT_OF_FOLD]
    method = _choose(table, method)
    folds = table.obs[_keys.FOLD].astype(str).to_numpy()
    in_order = list(dict.fromkeys(folds))
    rows = np.sort(np.concatenate(
        [_some(np.flatnonzero(folds == fold), _MOST_SPOTS) for fold in in_order]
    ))  # fmt: skip
    columns, folds = _some(np.arange(table.n_vars), _MOST_GENES), folds[rows]
    measured, predicted = (
        np.asarray(values[rows][:, columns], dtype=np.float64)
        for values in (table.X, table.layers[method])
    )
    there = np.isfinite(predicted)
    fewest = min(there[folds != fold].sum(axis=0).max(initial=0) for fold in in_order)
    levels = [level for level in _LEVELS if uncertainty.rows_needed(level) <= fewest]
    curve = []
    for level in levels or _LEVELS[:1]:  # too few for any: told by what counts them
        names, found = uncertainty.coverage_by_group(measured, predicted, folds, level=level)
        order = [names.index(fold) for fold in in_order]
        curve.append(_Coverage(level, tuple(in_order), found[order]))
    of = "" if len(columns) == table.n_vars else f" ({len(columns)} of {table.n_vars:,} genes)"
    return curve, f"{method}, out of fold{of}"


def _some(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many of them, evenly."""
    return places[np.linspace(0, len(places) - 1, min(len(places), most)).astype(int)]


def _choose(table: AnnData, method: str | None) -> str:
    named = [str(name) for name in table.layers if name is not None]  # anndata 0.13: None is X
    how = _provenance.recorded(table, "cross_validate")
    methods = [name for name in how.get("methods", named) if name in named]
    if method is None:
        if len(methods) != 1:
            raise ValueError(
                f"there are {len(methods)} methods, choose one: method={(methods or named)[0]!r}, …"
            )
        return methods[0]
    if method not in named:
        raise KeyError(
            f"tables[{_keys.OUT_OF_FOLD!r}] has no layers[{method!r}]; methods: "
            f"{_validate.listing(named)}"
        )
    return method


def _calibrated(sdata: SpatialData) -> _Coverage | None:
    """Coverage in each section of the intervals of predictions, where it can be counted."""
    if _keys.PREDICTED not in sdata.tables or _keys.TABLE not in sdata.tables:
        return None
    predicted = _sections.table_of(sdata, _keys.PREDICTED)
    if not {_keys.LOWER, _keys.UPPER} <= set(predicted.layers):
        return None
    genes = _measured.genes_of(sdata, predicted)
    if not genes:
        return None
    columns, region = predicted.var_names.get_indexer(genes), _sections.region_of(predicted)
    how = _provenance.recorded(predicted, "predict")
    trained = how.get("training_sections", [])
    names, found = [], []
    for name in _sections.section_names(predicted):
        rows = np.flatnonzero(region == name)
        measured = _measured.measured(sdata, predicted, rows, genes)
        if measured is None:
            continue
        lower, upper = (
            np.asarray(predicted.layers[layer][rows][:, columns])
            for layer in (_keys.LOWER, _keys.UPPER)
        )
        names.append(f"{name}\n(trained on)" if name in trained else name)
        found.append(uncertainty.coverage(measured, lower, upper))
    return _Coverage(float(how["level"]), tuple(names), np.array(found)) if names else None


def _draw_curve(ax: Axes, curve: list[_Coverage], title: str) -> None:
    levels = [coverage.level for coverage in curve]
    folds = np.array([coverage.means for coverage in curve])  # (n_levels, n_folds)
    known = folds[:, ~np.isnan(folds).any(axis=0)]
    low = min(levels[0], float(known.min(initial=1))) - 0.05
    ax.plot([low, 1], [low, 1], color="0.6", linestyle="--", linewidth=1, label="as promised")
    for number, fold in enumerate(known.T):
        ax.plot(levels, fold, color=_scores.PALE, linewidth=1,
                label=None if number else f"a fold (of {known.shape[1]})")  # fmt: skip
    ax.plot(levels, known.mean(axis=1), "o-", color=_scores.METHOD, markersize=4.5,
            label="mean over folds")  # fmt: skip
    ax.set(xlim=(low, 1), ylim=(low, 1), aspect="equal", title=title)
    ax.set_xlabel("level of the intervals")
    ax.set_ylabel("share of measured values in them")
    ax.legend(loc="upper left", frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_rows(ax: Axes, coverage: _Coverage, title: str) -> None:
    ax.axvline(coverage.level, color="0.6", linestyle="--", linewidth=1)
    for at, (row, mean) in enumerate(zip(coverage.of_genes, coverage.means, strict=True)):
        genes = row[~np.isnan(row)]
        if not len(genes):
            ax.annotate("not predicted", (0.5, at), xycoords=("axes fraction", "data"),
                        ha="center", va="center", color="0.5")  # fmt: skip
            continue
        for share, width in ((90, 1), (50, 4)):
            ends = np.percentile(genes, [50 - share / 2, 50 + share / 2])
            ax.plot(ends, [at, at], color=_scores.PALE, linewidth=width, solid_capstyle="butt")
        ax.plot(mean, at, "o", color=_scores.METHOD, markersize=5)
        ax.annotate(f"{mean:.2f}", (1.02, at), va="center", fontsize="small",
                    xycoords=("axes fraction", "data"))  # fmt: skip
    ax.set_xlim(min(ax.get_xlim()[0], coverage.level - _REACH), 1)
    ax.set_yticks(range(len(coverage.names)), coverage.names)
    ax.set_ylim(len(coverage.names) - 0.4, -0.6)
    ax.set_xlabel("share of measured values in their intervals")
    ax.set_title(title)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
