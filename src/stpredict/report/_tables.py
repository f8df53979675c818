"""Tables of the page: cells of text, shaded by their value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict.report import _words
from stpredict.results import (
    NEIGHBOR_MEAN,
    NOISE_CEILING,
    PCC_SHUFFLED,
    PCC_SPATIAL_NULL,
    TRAINING_MEAN,
    TUNED_RIDGE,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stpredict.results import CrossValidation

MISSING = "–"
#: Metrics in which 0 is nothing and 1 is best, which are shaded.
_CORRELATIONS = (
    "pcc",
    "spearman",
    "pcc_per_spot",
    "spearman_per_spot",
    "pcc_top50",
    "gene_correlation",
)


@dataclass(frozen=True)
class Cell:
    """Text, and a shade from 0 to 10, or none."""

    text: str
    shade: int | None = None


@dataclass(frozen=True)
class Row:
    """Cells of what a name says; ``kind`` is ``method``, ``reference`` or ``gene``."""

    name: str
    cells: list[Cell]
    kind: str = "method"
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, each a name and a note, and the rows below them."""

    columns: list[tuple[str, str]]
    rows: list[Row]


def summary(result: CrossValidation) -> Table:
    """Methods and references by metrics."""
    means = result.summary()
    first = [name for name in ("pcc", PCC_SPATIAL_NULL, PCC_SHUFFLED) if name in means]
    scored = [*first, *means.columns.drop([*first, "n_sections"])]  # nulls beside what they bound
    most = result.scores["section"].nunique()
    rows = []
    for name in dict.fromkeys([*result.methods, *means.index]):
        if name in means.index:
            cells = [_number(means.loc[name, metric], metric) for metric in scored]
            cells.append(Cell(f"{means.loc[name, 'n_sections']:.0f} of {most}"))
        else:
            cells = [Cell("failed"), *(Cell(MISSING) for _ in scored[1:]), Cell(f"0 of {most}")]
        rows.append(_row(result, name, cells))
    columns = [_words.metric(name) for name in scored]
    return Table([*columns, ("sections", "Sections that were scored.")], rows)


def by_section(result: CrossValidation) -> Table:
    """Mean PCC over genes: methods and references by sections."""
    means = result.values("pcc").groupby("section", sort=False).mean()
    failed = _failed(result)
    rows = []
    for name in dict.fromkeys([*result.methods, *means.columns]):
        values = means[name] if name in means else pd.Series(np.nan, means.index)
        cells = [
            Cell("failed") if (name, section) in failed else _number(value)
            for section, value in values.items()
        ]
        rows.append(_row(result, name, [*cells, _number(values.mean())]))
    return Table([*((str(name), "") for name in means.index), ("mean", "over sections")], rows)


def differences(result: CrossValidation) -> list[str]:
    """Sentences on where each method stands against tuned ridge."""
    scored = list(result.values("pcc"))
    ridges = [name for name in scored if name.startswith(TUNED_RIDGE)]
    return [
        str(result.compare(name, ridge))
        for name in result.methods
        for ridge in ridges
        if name in scored and result.values("pcc", methods=[name, ridge]).notna().all(axis=1).any()
    ]


def genes(result: CrossValidation, reliable: pd.DataFrame | None) -> Table:
    """Mean PCC over sections, a row per gene, by falling score of the first method."""
    frame = gene_scores(result)
    columns = [(_words.method(name), _words.note(name)) for name in frame]
    if PCC_SPATIAL_NULL in frame:
        columns[-1] = ("spatial null", "The highest of the methods' spatial nulls.")
    if reliable is not None:
        columns.append(
            ("reliable", "Methods that beat their spatial null and the training mean on it.")
        )
    rows = []
    for gene, values in zip(frame.index, frame.to_numpy(), strict=True):
        cells = [_number(value) for value in values]
        if reliable is not None:
            cells.append(Cell(f"{int(reliable.loc[gene].sum())} of {reliable.shape[1]}"))
        rows.append(Row(str(gene), cells, kind="gene"))
    return Table(columns, rows)


def gene_scores(result: CrossValidation) -> pd.DataFrame:
    """Mean PCC over sections: genes by methods, what bounds them, and the highest spatial null."""
    frame = _by_gene(result, "pcc").drop(columns=[TRAINING_MEAN, NEIGHBOR_MEAN], errors="ignore")
    if PCC_SPATIAL_NULL in set(result.scores["metric"]):
        frame[PCC_SPATIAL_NULL] = _by_gene(result, PCC_SPATIAL_NULL).max(axis=1)
    return frame.sort_values(frame.columns[0], ascending=False, kind="stable")


def _by_gene(result: CrossValidation, metric: str) -> pd.DataFrame:
    return result.values(metric).groupby("gene", sort=False).mean()


def per_section(
    result: CrossValidation, metric: str, genes: Sequence[str], sections: Sequence[str]
) -> dict[str, list[float | None]]:
    """One metric of each method, gene after gene, and within a gene section after section."""
    if metric not in set(result.scores["metric"]):
        return {}
    means = result.values(metric).groupby(["gene", "section"]).mean()
    wide = means.reindex(pd.MultiIndex.from_product([genes, sections]))
    return {
        name: [None if np.isnan(value) else round(value, 3) for value in wide[name].tolist()]
        for name in wide
    }


def _failed(result: CrossValidation) -> set[tuple[str, str]]:
    """Methods and sections of the folds in which they raised."""
    sections = result.settings.get("sections", {})
    return {
        (failure.method, section)
        for failure in result.failures
        for section in sections.get(failure.fold, ())
    }


def _row(result: CrossValidation, name: str, cells: list[Cell]) -> Row:
    kind = "method" if name in result.methods else "reference"
    kind = "ceiling" if name == NOISE_CEILING else kind
    return Row(_words.method(name), cells, kind, _words.note(name))


def _number(value: float, metric: str = "pcc") -> Cell:
    if not np.isfinite(value):
        return Cell(MISSING)
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"
    shade = int(np.clip(round(value * 10), 0, 10)) if metric in _CORRELATIONS else None
    return Cell("0.000" if text == "-0.000" else text, shade)
