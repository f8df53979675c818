"""Reliability of genes and programmes in regions of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.pp._expression._programs import read_gmt, set_weights
from stpredict.tl._crossval._held_out import read_method
from stpredict.uncertainty import conformal, coverage_by_group, region_means, rows_needed
from stpredict.uncertainty._reliable import MAX_FDR, adjust, compare_with_nulls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.tl._crossval._held_out import HeldOut

#: Spots of a region by default: a spot, and its first, second and third ring on a hexagonal grid.
_SCALES = (1, 7, 19, 37)
#: Least number of regions that fit into a section: fewer do not show a pattern.
_MIN_REGIONS = 4


@checked
def reliability_by_scale(
    sdata: SpatialData,
    *,
    scales: Sequence[int] | None = None,
    gene_sets: str | Path | None = None,
    method: str | None = None,
    level: float = 0.9,
    seed: int = 0,
    table_name: str = "table",
    key: str = "out_of_fold",
) -> pd.DataFrame:
    """Test which genes and programmes a method predicts in spots and in larger regions.

    A gene that is too noisy to be predicted in single spots may be predicted on average over a
    region, or as part of a gene programme. Measured values and out-of-fold predictions are averaged
    over each spot and its nearest spots within the section. At every scale, genes and programmes
    are compared with both nulls of :func:`stpredict.uncertainty.reliable`: predictions that were
    moved within the section, and the mean of the other groups. Averaged maps are smoother, and so
    are their nulls. The false discovery rate is 5 % over all rows of the result.

    Parameters
    ----------
    sdata
        Sections after :func:`stpredict.tl.cross_validate`.
    scales
        Numbers of spots of a region, including the spot in its centre. Default: 1, 7, 19 and 37, as
        far as the smallest section has four times as many spots.
    gene_sets
        Path of a GMT file, as for :func:`stpredict.pp.score_programs`. Programmes are scored from
        the genes that were predicted in all folds.
    method
        Name of the method in the cross-validation, by default the only one that is no baseline.
    level
        Nominal coverage of the intervals of regions.
    seed
        Random seed of the nulls, and of the genes that sets are compared with.
    table_name
        Name of the table.
    key
        Name of the table with the out-of-fold predictions.

    Returns
    -------
    pandas.DataFrame
        One row per scale and gene or programme: ``scale``, number of spots of a region; ``kind``,
        ``"gene"`` or ``"programme"``; ``name``; ``reliable``; ``pcc``, ``pcc_null``, ``p_adjusted``
        and ``rmse_ratio`` as in :class:`stpredict.uncertainty.Reliability`; ``coverage``, the share
        of regions of left-out groups inside intervals from the errors of the other groups; and
        ``width``, the mean width of these intervals from all groups, in the units of the
        predictions. NaN for genes that were not predicted in enough groups.

    Raises
    ------
    FileNotFoundError, KeyError
        If the file, the table of predictions or the method does not exist.
    ValueError
        If scales are not distinct numbers of at least 1, or a section has fewer than four times as
        many spots; if the table was not written by `tl.cross_validate`, the split leaks a group or
        left out blocks, or there is only one group or too few rows for the level; if several
        methods were validated and none is named; if no gene of a set was predicted.

    References
    ----------
    Benjamini and Hochberg, Controlling the false discovery rate, J. R. Stat. Soc. B 1995.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(3, size_px=1200)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, genes=["morphology_001", "morphology_002", "null_001"])
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> table = stp.tl.reliability_by_scale(sdata, scales=[1, 7])
    >>> table.pivot(index="name", columns="scale", values="reliable").shape
    (3, 2)
    """
    _validate.seed(seed)
    rows_needed(level)  # raises on a bad level
    sets = None if gene_sets is None else read_gmt(Path(gene_sets))
    spots = open_table(sdata, table_name)
    held_out, genes = read_method(spots, method=method, key=key)
    numbers = _check_scales(scales, held_out.sections)
    names = {"gene": genes.tolist()}
    measured, predicted = held_out.measured, held_out.predicted
    if sets is not None:
        weights = _programs(held_out, genes, sets, seed=seed)
        names["programme"] = list(weights.columns)
        measured, predicted = (
            np.hstack([values, values[:, weights.index] @ weights.to_numpy()])
            for values in (measured, predicted)
        )
    columns = pd.DataFrame(
        [(kind, name) for kind, each in names.items() for name in each], columns=["kind", "name"]
    )
    parts = []
    for n_spots in numbers:
        scored = _scored(
            measured, predicted, spots.positions_um, held_out, n_spots, level=level, seed=seed
        )
        parts.append(pd.concat([columns.assign(scale=n_spots), scored], axis=1))
    table = pd.concat(parts, ignore_index=True)
    table["p_adjusted"] = adjust(table.pop("p_value").to_numpy())
    table["reliable"] = (table["p_adjusted"] <= MAX_FDR) & (table["rmse_ratio"] < 1)
    _report(table, held_out.method)
    first = ["scale", "kind", "name", "reliable", "pcc", "pcc_null", "p_adjusted", "rmse_ratio"]
    return table[[*first, "coverage", "width"]]


def _check_scales(scales: Sequence[int] | None, sections: NDArray[np.str_]) -> list[int]:
    """Scales of regions that fit several times into every section."""
    names, sizes = np.unique(sections, return_counts=True)
    most = int(sizes.min()) // _MIN_REGIONS
    if scales is None:
        return [n_spots for n_spots in _SCALES if n_spots <= max(1, most)]
    numbers = list(scales)
    for number in numbers:
        _validate.whole_number("scales", number)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"scales must be distinct numbers of spots, such as [1, 7, 19]: {numbers}")
    if max(numbers) > max(1, most):
        smallest = f"section {str(names[sizes.argmin()])!r} has {sizes.min()} spots"
        raise ValueError(
            f"scales has regions of {max(numbers)} spots, but {smallest}: give at most "
            f"{max(1, most)}, a quarter"
        )
    return numbers


def _programs(
    held_out: HeldOut, genes: NDArray[np.str_], sets: dict[str, list[str]], *, seed: int
) -> pd.DataFrame:
    """Weights of the genes that were predicted in all rows (index) in programmes (columns)."""
    columns = np.flatnonzero(np.isfinite(held_out.predicted).all(axis=0))
    names = genes[columns].tolist()
    present = {name: [gene for gene in members if gene in names] for name, members in sets.items()}
    if empty := [name for name, members in present.items() if not members]:
        reason = _validate.why_absent(sets[empty[0]], pd.Index(names))
        raise ValueError(f"gene_sets: no gene of {empty[0]!r} was predicted in all folds{reason}")
    weights = set_weights(held_out.measured[:, columns], names, present, seed=seed)
    return pd.DataFrame(weights, index=columns, columns=list(present))


def _scored(
    measured: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    positions: NDArray[np.float64],
    held_out: HeldOut,
    n_spots: int,
    *,
    level: float,
    seed: int,
) -> pd.DataFrame:
    """Scores of every column at one scale."""
    sections, groups = held_out.sections, held_out.groups
    test = compare_with_nulls(
        measured,
        predicted,
        positions,
        sections=sections,
        groups=groups,
        seed=seed,
        n_spots=n_spots,
    )
    measured, predicted = (
        region_means(values, positions, sections=sections, n_spots=n_spots)
        for values in (measured, predicted)
    )
    shares = coverage_by_group(measured, predicted, groups, level=level)[1]
    lower, upper = conformal(measured, predicted, groups, level=level).around(predicted)
    return pd.DataFrame(
        {
            "pcc": test.pcc,
            "pcc_null": test.pcc_null,
            "p_value": test.p_values,
            "rmse_ratio": test.rmse_ratio,
            "coverage": _finite_mean(shares),
            "width": _finite_mean(upper - lower),
        }
    )


def _finite_mean(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Mean of the finite values of each column, NaN without any."""
    return pd.DataFrame(np.where(np.isfinite(values), values, np.nan)).mean().to_numpy()


def _report(table: pd.DataFrame, method: str) -> None:
    """Log the number of reliable genes and programmes of each scale."""
    counts = table.groupby(["kind", "scale"])["reliable"].agg(["sum", "size"])
    listed = [
        f"{row['sum']} of {row['size']} {kind}s in regions of {scale} spots"
        for (kind, scale), row in counts.iterrows()
    ]
    info(f"reliability of {method!r}: {'; '.join(listed)}")
