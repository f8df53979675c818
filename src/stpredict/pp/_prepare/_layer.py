"""Make the layer that a model was trained on, as far as the new sections allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._steps import NormalizeStep, RankStep
from stpredict.pp._prepare._replay import replay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import LayerStep, SmoothStep


def make_layer(spots: SpotTable, steps: Iterable[LayerStep]) -> None:
    """Repeat the steps of a layer; log why, if the measured data do not allow one of them."""
    for step in steps:
        obstacle = "" if isinstance(step, NormalizeStep) else _obstacle(spots, step)
        if obstacle:
            info(f"prepare: the layer that the model predicts is not computed: {obstacle}")
            return
        replay(spots, step)


def _obstacle(spots: SpotTable, step: SmoothStep | RankStep) -> str:
    """Reason why a step cannot be repeated; empty if it can."""
    table = spots.table
    if step.layer is not None and step.layer not in table.layers:
        return f"the table has no layers[{step.layer!r}]"
    if isinstance(step, RankStep):
        return _rank_obstacle(spots, step)
    if step.n_neighbors is None:
        has_graph = _keys.CONNECTIVITIES in table.obsp
        return "" if has_graph else "it needs a neighbourhood graph, run stp.pp.neighbors first"
    small = [name for name, rows in spots.section_rows.items() if len(rows) <= step.n_neighbors]
    if small:
        return f"too few spots for {step.n_neighbors} neighbours in {_validate.listing(small)}"
    return ""


def _rank_obstacle(spots: SpotTable, step: RankStep) -> str:
    """Ranks can be compared only among the same genes."""
    table = spots.table
    if step.genes is None:
        if table.n_vars == step.n_genes:
            return ""
        return (
            f"training ranked {step.n_genes} columns, the table has {table.n_vars}. To compare "
            "ranks, give genes= that both have to stp.pp.rank_expression before fitting"
        )
    absent = [gene for gene in step.genes if gene not in table.var_names]
    if absent:
        return (
            f"{len(absent)} of the {len(step.genes)} ranked genes are not in the table "
            f"({_validate.listing(absent)})"
        )
    return ""
