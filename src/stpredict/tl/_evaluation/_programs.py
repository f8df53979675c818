"""Scores of gene programmes, computed from measured and from predicted genes alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._sdata._provenance import recorded_steps
from stpredict.pp._expression._programs import set_weights
from stpredict.tl._evaluation._tables import has_units
from stpredict.tl._evaluation._truth import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable


@dataclass(frozen=True, eq=False)
class Programs:
    """Measured and predicted tables whose columns are programmes."""

    spots: SpotTable
    truth: Truth
    predictions: dict[str, AnnData]
    notes: tuple[str, ...]


def score_programs(
    spots: SpotTable,
    truth: Truth,
    predictions: dict[str, AnnData],
    sets: dict[str, list[str]],
    *,
    seed: int,
) -> Programs:
    """Score programmes in the measured table and in the tables of predictions.

    All are computed from the genes that every table predicts, with the same genes for comparison,
    which are drawn by measured expression.
    """
    if truth.is_binary:
        raise ValueError("gene_sets= needs expression, and the tables predict high or low: omit it")
    tables = {name: table for name, table in predictions.items() if has_units(table)}
    if not tables:
        raise ValueError(
            "gene_sets= needs predictions whose genes have the same units: read them with "
            "same_units=True or fit_sections="
        )
    genes = spots.table.var_names
    for table in tables.values():
        genes = genes.intersection(table.var_names, sort=False)
    present = {name: [gene for gene in members if gene in genes] for name, members in sets.items()}
    scored = {name: members for name, members in present.items() if members}
    if not scored:
        reason = _validate.why_absent(next(iter(sets.values())), genes)
        raise ValueError(f"gene_sets: no gene of a set is both measured and predicted{reason}")
    columns = spots.table.var_names.get_indexer(genes)
    first = next(iter(tables.values()))
    measured = truth.values(spots, np.arange(spots.table.n_obs), columns, first)
    weights = set_weights(measured, genes.tolist(), scored, seed=seed)
    var = pd.DataFrame({"n_genes": [len(members) for members in scored.values()]}, index=[*scored])
    own = _with_values(spots.table, measured @ weights, var)
    units = f"programme scores of {truth.units}"
    by_name = {
        name: _predicted(table[:, genes], weights, var, units) for name, table in tables.items()
    }
    n_genes = sum(map(len, scored.values()))
    notes = [f"Programmes are scored from {n_genes} of {sum(map(len, sets.values()))} genes."]
    if len(scored) < len(sets):
        absent = _validate.listing(name for name in sets if name not in scored)
        notes.append(f"No gene of these is predicted: {absent}.")
    return Programs(replace(spots, table=own), Truth(None, units), by_name, tuple(notes))


def _predicted(
    table: AnnData, weights: NDArray[np.float64], var: pd.DataFrame, units: str
) -> AnnData:
    mean = table.var["training_mean"].to_numpy(dtype=np.float64) @ weights
    programs = _with_values(table, np.asarray(table.X) @ weights, var.assign(training_mean=mean))
    steps = recorded_steps(table)
    # notes on genes are reported with their scores
    steps["predict"] = {**steps["predict"], "units": units, "notes": []}
    programs.uns[_keys.UNS] = steps
    return programs


def _with_values(table: AnnData, values: NDArray[np.float64], var: pd.DataFrame) -> AnnData:
    """The rows of a table with other columns."""
    slots = {kind: dict(getattr(table, kind)) for kind in ("obsm", "obsp")}
    return AnnData(values, obs=table.obs.copy(), var=var, uns=dict(table.uns), **slots)
