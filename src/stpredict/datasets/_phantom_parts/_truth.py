"""Planted expression between the spots of a phantom, for tests and benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict._sdata._provenance import recorded
from stpredict.datasets._phantom_parts import _spots
from stpredict.datasets._phantom_parts._design import Design
from stpredict.datasets._phantom_parts._draw_tissue import draw_tissue

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def planted_at(table: AnnData, index: int, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Planted log1p expression of a phantom's morphology genes at pixels of a section, (n, g)."""
    record = recorded(table, "phantom")
    names = [name for name in Design.__dataclass_fields__ if name != "size_px"]
    design = Design(size_px=tuple(record["size_px"]), **{name: record[name] for name in names})
    rng = design.random_streams(index)
    tissue = draw_tissue(rng["tissue"], rng["stain"], design)
    n = len(xy)
    places = _spots.PlacedSpots(xy, np.ones(n, dtype=bool), np.zeros(n, dtype=np.intp), None)
    genes = table.var.query("planted == 'morphology'")
    weights = genes[[f"weight_{name}" for name in _spots.MORPHOLOGY]].to_numpy()
    share = genes["share"].to_numpy()
    raw = share * np.exp(_spots.in_tiles(design, tissue, places) @ weights.T)
    return np.log1p(1e4 * raw * share.sum() / raw.sum(axis=1, keepdims=True))
