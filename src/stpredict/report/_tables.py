"""Tables of the page: text in cells, shaded by value."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from stpredict import _keys, results, uncertainty
from stpredict.pl._drawing._scores import record_of
from stpredict.report import _words
from stpredict.results import PCC_SHUFFLED, PCC_SPATIAL_NULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.results import Scores

_DASH = "–"


@dataclass(frozen=True)
class Cell:
    """Text, and a shade from 0 to 10, or None."""

    text: str
    shade: int | None = None


@dataclass(frozen=True)
class Row:
    """Cells of a method, a reference or a gene."""

    name: str
    cells: list[Cell]
    kind: Literal["method", "reference", "ceiling", "gene"] = "method"
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, each a label and a note, and rows."""

    columns: list[tuple[str, str]]
    rows: list[Row]


def summary(scores: Scores) -> Table:
    """Methods, baselines and references by metrics."""
    means = scores.summary()
    # nulls next to the metric that they belong to
    first = [name for name in ("pcc", PCC_SPATIAL_NULL, PCC_SHUFFLED) if name in means]
    names = [*first, *means.columns.drop([*first, "n_sections"])]
    n_sections = scores.table["section"].nunique()
    rows = []
    for method in dict.fromkeys([*scores.methods, *means.index]):
        if method in means.index:
            cells = [_number(means.loc[method, metric], metric) for metric in names]
            cells.append(Cell(f"{means.loc[method, 'n_sections']:.0f} of {n_sections}"))
        else:
            cells = [Cell("failed"), *(Cell(_DASH) for _ in names[1:]), Cell(f"0 of {n_sections}")]
        rows.append(_method_row(scores, method, cells))
    columns = [(record_of(name).label, record_of(name).description) for name in names]
    return Table([*columns, ("sections", "Number of scored sections.")], rows)


def by_section(scores: Scores) -> Table:
    """Mean PCC over genes: methods, baselines and references by sections."""
    means = scores.values("pcc").groupby("section", sort=False).mean()
    failed = _failed_sections(scores)
    rows = []
    for method in dict.fromkeys([*scores.methods, *means.columns]):
        values = means[method] if method in means else pd.Series(np.nan, means.index)
        cells = [
            Cell("failed") if (method, section) in failed else _number(value)
            for section, value in values.items()
        ]
        rows.append(_method_row(scores, method, [*cells, _number(values.mean())]))
    return Table([*((str(name), "") for name in means.index), ("mean", "over sections")], rows)


def differences(scores: Scores) -> list[str]:
    """Differences of each method from the baselines, or from the others, one sentence each."""
    pcc = scores.values("pcc")
    pairs: Iterable[tuple[str, str]] = itertools.product(scores.methods, scores.baselines)
    if not scores.baselines:
        pairs = itertools.combinations(scores.methods, 2)
    return [
        str(scores.compare(method, other))
        for method, other in pairs
        # only where some gene has both
        if {method, other} <= set(pcc) and pcc[[method, other]].notna().all(axis=1).any()
    ]


def genes(scores: Scores, reliable: pd.DataFrame | None) -> Table:
    """Mean PCC over sections, one row per gene, sorted by the first method."""
    frame = gene_scores(scores)
    columns = [(_words.method_label(name), _words.NOTES.get(name, "")) for name in frame]
    if PCC_SPATIAL_NULL in frame:
        columns[-1] = ("spatial null", "Highest spatial null of all methods.")
    if reliable is not None:
        columns.append(("reliable", "Methods that beat their spatial null and the training mean."))
    rows = []
    for gene, values in zip(frame.index, frame.to_numpy(), strict=True):
        cells = [_number(value) for value in values]
        if reliable is not None:
            cells.append(Cell(f"{int(reliable.loc[gene].sum())} of {reliable.shape[1]}"))
        rows.append(Row(str(gene), cells, kind="gene"))
    return Table(columns, rows)


def gene_scores(scores: Scores) -> pd.DataFrame:
    """Mean PCC over sections: genes by methods, baselines, ceiling and highest spatial null."""
    frame = scores.values("pcc").groupby("gene", sort=False).mean()
    frame = frame.drop(columns=[results.TRAINING_MEAN, results.NEIGHBOR_MEAN], errors="ignore")
    if PCC_SPATIAL_NULL in scores.metrics:
        nulls = scores.values(PCC_SPATIAL_NULL).groupby("gene", sort=False).mean()
        frame[PCC_SPATIAL_NULL] = nulls.max(axis=1)
    return frame.sort_values(frame.columns[0], ascending=False, kind="stable")


def per_section(
    scores: Scores, metric: str, genes: Sequence[str], sections: Sequence[str]
) -> dict[str, list[float | None]]:
    """One metric of each method, by gene and then by section."""
    if metric not in scores.metrics:
        return {}
    means = scores.values(metric).groupby(["gene", "section"]).mean()
    wide = means.reindex(pd.MultiIndex.from_product([genes, sections]))
    return {
        name: [None if np.isnan(value) else round(value, 3) for value in wide[name].tolist()]
        for name in wide
    }


def reliable_genes(spots: SpotTable, scores: Scores) -> pd.DataFrame | None:
    """Genes that each method predicts reliably, bool; None without folds, or if the split leaks."""
    if scores.protocol.group_kind is None:
        return None
    table = spots.table
    folds = table.obs[_keys.FOLD].astype(str).to_numpy()
    if scores.leaky or len(set(folds)) < 2:
        return None
    reliable = {}
    for name in scores.methods:
        measured, predicted = np.asarray(table.X), np.asarray(table.layers[name])
        reliable[name] = uncertainty.reliable(
            measured, predicted, spots.positions_um, sections=spots.section_of_row, groups=folds
        ).reliable
    return pd.DataFrame(reliable, index=table.var_names)


def kind_of(scores: Scores, method: str) -> Literal["method", "reference", "ceiling"]:
    """Kind of a row; baselines are shown like references."""
    if method in scores.methods:
        return "method"
    return "ceiling" if method == results.NOISE_CEILING else "reference"


def _failed_sections(scores: Scores) -> set[tuple[str, str]]:
    """Methods, and the sections of the folds in which they raised an error."""
    groups = scores.table[["section", "group"]].astype(str).drop_duplicates()
    return {
        (failure.method, section)
        for failure in scores.failures
        for section, group in groups.itertuples(index=False)
        if group in scores.protocol.folds.get(failure.fold, ())
    }


def _method_row(scores: Scores, method: str, cells: list[Cell]) -> Row:
    label, note = _words.method_label(method), _words.NOTES.get(method, "")
    return Row(label, cells, kind_of(scores, method), note)


def _number(value: float, metric: str = "pcc") -> Cell:
    if not np.isfinite(value):
        return Cell(_DASH)
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"
    record = record_of(metric)
    # shades go from chance to the best value of correlations and the like
    shaded = record.better == "higher" and record.chance == 0
    shade = int(np.clip(round(value * 10), 0, 10)) if shaded else None
    return Cell("0.000" if text == "-0.000" else text, shade)
