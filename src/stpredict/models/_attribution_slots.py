"""Attributions in the form in which a table stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from stpredict.models._attribution import Attributed
    from stpredict.training import Inputs


def pixel_slot(parts: list[Attributed], n_obs: int) -> sp.csr_matrix:
    """Attributions to the pixels of some rows, (n_obs, h × w)."""
    rows = np.concatenate([part.rows for part in parts])
    values = np.concatenate([part.shares[0].reshape(len(part.rows), -1) for part in parts])
    n_pixels = values.shape[1]
    pixels = np.tile(np.arange(n_pixels), len(rows))
    return sp.csr_matrix(
        (values.ravel(), (np.repeat(rows, n_pixels), pixels)), shape=(n_obs, n_pixels)
    )


def context_slots(parts: list[Attributed], names: pd.Index, inputs: Inputs) -> dict[str, Any]:
    """Attributions to tile, sub-tiles and neighbours, and to each neighbour."""
    rows = np.concatenate([part.rows for part in parts])
    shares = [np.concatenate(share) for share in zip(*(part.shares for part in parts), strict=True)]
    columns = {"spot": shares[0]}
    if inputs.subtiles is not None:
        columns |= {f"subtile_{i}": share for i, share in enumerate(shares[1].T, start=1)}
    slots: dict[str, Any] = {}
    if inputs.neighbors is not None:
        columns["neighbors"] = shares[-1].sum(axis=1)
        is_neighbor = inputs.neighbors[rows] >= 0
        links = np.repeat(rows, is_neighbor.sum(axis=1)), inputs.neighbors[rows][is_neighbor]
        slots["obsp"] = sp.csr_matrix(
            (shares[-1][is_neighbor], links), shape=(len(names), len(names))
        )
    values = np.full((len(names), len(columns)), np.nan, dtype=np.float32)
    values[rows] = np.column_stack(list(columns.values()))
    frame = pd.DataFrame(values, index=names, columns=list(columns))
    return {"obsm": frame, **slots}
