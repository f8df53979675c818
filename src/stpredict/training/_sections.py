"""Standardisation of embeddings within each section."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from stpredict._log import warn
from stpredict.targets import Standard

#: Pieces of HER2ST C2-C5 of 50 neighbouring spots, standardised on their own, were predicted worse
#: than with the statistics of training, those of 100 better.
_FEW = 60


def scaler_of_section(values: NDArray[np.floating], *, section: str) -> Standard:
    """Standardisation of the embeddings of a section, (n, d)."""
    return _check(Standard.fit(values), section=section, n_spots=len(values))


def scaler_of_blocks(moments: StandardScaler, *, section: str) -> Standard:
    """Standardisation of a section whose embeddings were read in blocks, by ``partial_fit``."""
    scaler = Standard.of_moments(moments.mean_, np.sqrt(moments.var_))
    return _check(scaler, section=section, n_spots=int(moments.n_samples_seen_))


def _check(scaler: Standard, *, section: str, n_spots: int) -> Standard:
    if scaler.constant.all():  # of one spot, all features are constant
        raise ValueError(
            f"section {section!r} has {n_spots} spots with equal features, which cannot be "
            'standardised within it: use a model fitted with standardize="training"'
        )
    if n_spots < _FEW:
        warn(
            f"section {section!r} has {n_spots} spots; features standardised over fewer than "
            f'{_FEW} may predict worse than those of a model with standardize="training"'
        )
    return scaler


def standardize_sections(
    center: NDArray[np.float32],  # (n, d)
    subtiles: NDArray[np.float32] | None,  # (n, s, d), or of the first of several fields
    rows_of_section: Mapping[str, NDArray[np.intp]],
    scalers: Mapping[str, Standard],  # of whole sections of which the rows are a part
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Standardise embeddings within each section; sub-tiles with the statistics of the tiles."""
    tiles = np.empty_like(center)
    parts = None if subtiles is None else np.empty_like(subtiles)
    for section, rows in rows_of_section.items():
        values = center[rows]
        scaler = scalers.get(section) or scaler_of_section(values, section=section)
        tiles[rows] = scaler.transform(values)
        if subtiles is not None and parts is not None:
            width = subtiles.shape[-1]
            first_field = Standard(scaler.mean[:width], scaler.scale[:width])
            parts[rows] = first_field.transform(subtiles[rows])
    return tiles, parts
