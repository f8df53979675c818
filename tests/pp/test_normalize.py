"""log1p of counts per 10,000, as by hand and as scanpy does."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
import spatialdata as sd

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import layer_names

SMALL = {"size_px": 400, "mpp": 0.5, "pitch_um": 40.0, "n_morphology": 2, "n_neighborhood": 2}


@pytest.fixture
def sdata():
    return stp.datasets.phantom(**SMALL, n_null=6)


def dense(values):
    return values.toarray() if sp.issparse(values) else np.asarray(values)


FORMATS = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "dense": np.asarray,
    "integers": lambda x: np.asarray(x).astype(np.int64),
    "sparse integers": lambda x: sp.csr_matrix(x.astype(np.int32)),
    "float64": lambda x: sp.csr_matrix(x.astype(np.float64)),
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS.keys())
def test_formula(sdata, make):
    table = sdata.tables["table"]
    counts = table.X.toarray()
    table.X = make(counts)
    stp.pp.normalize(sdata)
    layer = table.layers["log1p"]
    assert layer.dtype == np.float32
    assert layer.shape == table.shape
    by_hand = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(dense(layer), by_hand, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(dense(table.X), counts)  # X stays as it is
    assert table.X.dtype == make(counts).dtype


@pytest.mark.parametrize("target_sum", [1.0, 1e4, 1e6])
def test_as_scanpy(sdata, target_sum):
    table = sdata.tables["table"]
    reference = table.copy()
    sc.pp.normalize_total(reference, target_sum=target_sum)
    sc.pp.log1p(reference)
    stp.pp.normalize(sdata, target_sum=target_sum)
    np.testing.assert_allclose(dense(table.layers["log1p"]), dense(reference.X), rtol=1e-6)
    assert _provenance.recorded(table, "normalize")["target_sum"] == target_sum


def test_a_second_call_replaces_the_layer(sdata):
    stp.pp.normalize(sdata, target_sum=100)
    stp.pp.normalize(sdata)
    layer = sdata.tables["table"].layers["log1p"]
    np.testing.assert_allclose(np.expm1(dense(layer)).sum(axis=1), 1e4, rtol=1e-4)


@pytest.mark.parametrize("value", [1e300, 1e-300, True, "5", np.nan])
def test_a_total_that_float32_cannot_hold_is_refused(sdata, value):
    with pytest.raises((ValueError, TypeError), match=r"target_sum.* must "):
        stp.pp.normalize(sdata, target_sum=value)
    assert layer_names(sdata.tables["table"]) == ["expected"]


def test_a_spot_without_counts_stays_zero_and_is_logged(sdata, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    table = sdata.tables["table"]
    counts = table.X.toarray()
    counts[2] = 0
    table.X = sp.csr_matrix(counts)
    stp.pp.normalize(sdata)
    assert "normalize: 1 spots have no counts, and keep 0" in capsys.readouterr().out
    layer = dense(table.layers["log1p"])
    assert (layer[2] == 0).all()
    assert np.isfinite(layer).all()


def test_copy(sdata):
    changed = stp.pp.normalize(sdata, copy=True)
    assert isinstance(changed, sd.SpatialData)
    assert "log1p" in changed.tables["table"].layers
    assert "log1p" not in sdata.tables["table"].layers
    assert "normalize" not in sdata.tables["table"].uns["stpredict"]
    assert stp.pp.normalize(sdata) is None


def test_survives_zarr(sdata, tmp_path):
    stp.pp.normalize(sdata)
    sdata.write(tmp_path / "a.zarr")
    read = sd.read_zarr(tmp_path / "a.zarr").tables["table"]
    table = sdata.tables["table"]
    np.testing.assert_array_equal(dense(read.layers["log1p"]), dense(table.layers["log1p"]))
    assert _provenance.recorded(read, "normalize") == _provenance.recorded(table, "normalize")


@pytest.mark.parametrize("target_sum", [0, -1.0, np.nan, np.inf])
def test_bad_target(sdata, target_sum):
    with pytest.raises(ValueError, match=r"target_sum must be a (finite number|number above 0)"):
        stp.pp.normalize(sdata, target_sum=target_sum)
    assert "log1p" not in sdata.tables["table"].layers
