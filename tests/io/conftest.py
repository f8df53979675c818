"""Conditions that every test of a reader meets."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

import stpredict as stp


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No messages, but where a test turns them on to look at them."""
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def write_matrix(path, counts, barcodes, *, ids, symbols, types):
    """Write counts (n, n_genes) in 10x's HDF5 layout."""
    matrix = sp.csc_matrix(counts.T, dtype=np.int32)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array(ids, dtype="S")
        features["name"] = np.array(symbols, dtype="S")
        features["feature_type"] = np.array(types, dtype="S")
        features["genome"] = np.array(["GRCh38"] * len(ids), dtype="S")


@pytest.fixture
def write_10x():
    return write_matrix
