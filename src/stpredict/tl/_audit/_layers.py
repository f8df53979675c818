"""Whether a layer was smoothed, imputed or denoised, by its record and by its noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict import _validate
from stpredict._sdata._layer_steps import holds_counts
from stpredict._sdata._spot_table import layer_names
from stpredict._sdata._steps import SmoothStep
from stpredict.targets._matrix import as_matrix, dense
from stpredict.tl._audit._noise import nearest, noise_kept, sub_poisson_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

SMOOTHED, MEASURED, UNTESTED = "smoothed", "measured", "untested"

#: Most expressed genes that are tested, and spots per section, which bound the time.
_N_GENES, _N_SPOTS = 200, 1000
_MIN_SPOTS, _MIN_GENES = 20, 20
#: Least share of noise in a measured layer. On sections of the phantom and of HER2ST, six
#: normalisations of counts kept 0.93 to 1.11; means over 6 neighbours 0.26 to 0.43, over the 10
#: nearest spots by expression 0.39 to 0.61, and 8 or 20 components 0.00 where they left out any.
_KEPT = 0.8
#: Most genes that vary less than Poisson counts; 0.000 in counts of the same sections.
_SUB_POISSON = 0.05
#: Layer of counts, by the convention of scverse, where ``X`` has none.
_COUNTS = "counts"


def layer_evidence(spots: SpotTable, layer: str | None) -> pd.DataFrame:
    """Evidence and verdict of each section."""
    values = as_matrix(spots.layer(layer))
    recorded = any(isinstance(step, SmoothStep) for step in spots.steps.layer(layer))
    reference = _reference(spots, layer)
    own = values if holds_counts(values) else None
    evidence = []
    for section in spots.sections:
        kept = share = np.nan
        counts = own if reference is None else reference
        part = None if counts is None else _part(counts, section.rows, section.centers_um)
        if counts is not None and part is not None:
            rows, genes, neighbors = part
            tested = dense((counts if own is None else own)[rows][:, genes]).astype(np.float64)
            share = sub_poisson_share(tested, neighbors)
            if reference is not None:
                of_layer = dense(values[rows][:, genes]).astype(np.float64)
                molecules = dense(reference[rows][:, genes]).astype(np.float64)
                kept = noise_kept(of_layer, molecules, _library(reference[rows]), neighbors)
        evidence.append((section.name, recorded, kept, share))
    table = pd.DataFrame(evidence, columns=["section", "recorded", "noise_kept", "sub_poisson"])
    smoothed = table["recorded"] | (table["noise_kept"] < _KEPT)
    smoothed |= table["sub_poisson"] > _SUB_POISSON
    untested = table[["noise_kept", "sub_poisson"]].isna().all(axis=1)
    table["verdict"] = np.select([smoothed, untested], [SMOOTHED, UNTESTED], MEASURED)
    return table


def check_test_layer(
    spots: SpotTable, layer: str | None, *, allow_smoothed: bool
) -> tuple[str, ...]:
    """Require a layer that was not smoothed, unless it is allowed; notes for readers of scores."""
    evidence = layer_evidence(spots, layer)
    label = "X" if layer is None else f"layers[{layer!r}]"
    smoothed = evidence[evidence["verdict"] == SMOOTHED]
    if len(smoothed):
        names = _validate.listing(smoothed["section"])
        if not allow_smoothed:
            raise ValueError(
                f"{label} is smoothed, imputed or denoised in sections {names}: {_reason(smoothed)}"
                ". Scores against it are too high: name a measured layer with layer=, or set "
                "allow_smoothed=True"
            )
        return (f"{label} is SMOOTHED in sections {names} ({_reason(smoothed)}): scores are high.",)
    untested = evidence.loc[evidence["verdict"] == UNTESTED, "section"]
    if len(untested):
        names = _validate.listing(untested)
        return (f"Without counts of 20 genes, {label} may be smoothed in sections {names}.",)
    return ()


def _reason(smoothed: pd.DataFrame) -> str:
    """Evidence of the first section, in words."""
    first = smoothed.iloc[0]
    if first["recorded"]:
        return "stp.pp.smooth made it"
    if first["noise_kept"] < _KEPT:
        return f"it has {first['noise_kept']:.0%} of the noise of its counts"
    return f"{first['sub_poisson']:.0%} of its genes vary less than counts can"


def _reference(spots: SpotTable, layer: str | None) -> Any:
    """Counts that a layer was computed from: ``X``, else the layer of counts; None without."""
    for name in (None, _COUNTS):
        if name != layer and (name is None or name in layer_names(spots.table)):
            counts = as_matrix(spots.layer(name))
            if holds_counts(counts):
                return counts
    return None


def _part(
    counts: Any, rows: NDArray[np.intp], positions: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]] | None:
    """Rows of one piece of tissue, the genes to test and the rows' neighbours; None for few."""
    filled = _library(counts[rows]) > 0
    rows, positions = rows[filled], positions[filled]
    if len(rows) < _MIN_SPOTS:
        return None
    center = positions[np.argmin(np.linalg.norm(positions - np.median(positions, axis=0), axis=1))]
    near = np.sort(np.argsort(np.linalg.norm(positions - center, axis=1))[:_N_SPOTS])
    rows, positions = rows[near], positions[near]
    total = np.asarray(counts[rows].sum(axis=0)).ravel()
    genes = np.sort(np.argsort(-total, kind="stable")[:_N_GENES])
    genes = genes[total[genes] > 0]
    return (rows, genes, nearest(positions)) if len(genes) >= _MIN_GENES else None


def _library(counts: Any) -> NDArray[np.float64]:
    return np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
