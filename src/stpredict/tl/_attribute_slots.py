"""Attributions as slots of the table of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from anndata import AnnData

    from stpredict.models._attribution import Attributed
    from stpredict.training import Inputs


def maps(parts: list[Attributed], n_obs: int) -> sp.csr_matrix:
    """Maps of the pixels of some rows, (n_obs, h × w)."""
    rows = np.concatenate([part.rows for part in parts])
    values = np.concatenate([part.shares[0].reshape(len(part.rows), -1) for part in parts])
    n, n_pixels = values.shape
    filled = np.zeros(n_obs, dtype=np.int64)
    filled[rows] = n_pixels
    return sp.csr_matrix(
        (
            values[np.argsort(rows)].ravel(),
            np.tile(np.arange(n_pixels), n),
            np.concatenate([[0], np.cumsum(filled)]),
        ),
        shape=(n_obs, n_pixels),
    )


def of_context(parts: list[Attributed], table: AnnData, inputs: Inputs) -> dict[str, Any]:
    """Shares of tile, sub-tiles and neighbours, and those of each neighbour."""
    rows = np.concatenate([part.rows for part in parts])
    shares = [np.concatenate(share) for share in zip(*(part.shares for part in parts), strict=True)]
    columns = {"spot": shares[0]}
    if inputs.subtiles is not None:
        columns |= {f"subtile_{i}": share for i, share in enumerate(shares[1].T, start=1)}
    stored: dict[str, Any] = {}
    if inputs.neighbors is not None:
        columns["neighbors"] = shares[-1].sum(axis=1)
        there = inputs.neighbors[rows] >= 0
        links = np.repeat(rows, there.sum(axis=1)), inputs.neighbors[rows][there]
        stored["obsp"] = sp.csr_matrix((shares[-1][there], links), shape=(table.n_obs,) * 2)
    values = np.full((table.n_obs, len(columns)), np.nan, dtype=np.float32)
    values[rows] = np.column_stack(list(columns.values()))
    frame = pd.DataFrame(values, index=table.obs_names, columns=list(columns))
    return {"obsm": frame, **stored}
