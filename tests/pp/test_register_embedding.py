"""Features computed elsewhere are used like embeddings, and compared like them."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd

import stpredict as stp
from stpredict._sdata._provenance import read_steps
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import EmbedStep

SMALL = {"size_px": 600, "mpp": 0.5, "pitch_um": 40.0, "n_morphology": 2, "n_neighborhood": 2}
STEP = {"encoder": "my_model", "tile_um": 112.0}


def phantom(seed=0):
    sdata = stp.datasets.phantom(2, **SMALL, n_null=2, seed=seed)
    table = sdata.tables["table"]
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=3)
    stp.pp.neighbors(sdata)
    # features that predict expression, as another tool would store them
    random = np.random.default_rng(seed)
    table.obsm["features"] = np.log1p(table.X.toarray()) + random.normal(0, 0.1, table.shape)
    return sdata


def features(sdata):
    return sdata.tables["table"].obsm["features"]


def registered(seed=0, **options):
    sdata = phantom(seed)
    stp.pp.register_embedding(sdata, "features", **{**STEP, **options})
    return sdata


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return stp.tl.fit_ridge(registered(), embedding="features", context="spot_neighbors")


def test_features_are_stored_as_float32_and_recorded(sdata):
    values = features(sdata).copy()
    stp.pp.register_embedding(
        sdata, "features", encoder="uni", tile_um=56, mpp=0.25, weights_hash="abc"
    )
    assert features(sdata).dtype == np.float32
    np.testing.assert_array_equal(features(sdata), values.astype(np.float32))
    step = read_steps(sdata.tables["table"]).embed["features"]
    assert step == EmbedStep("uni", "abc", 56.0, 0.25, n_subtiles=1, registered=True)


def test_a_model_is_fitted_and_predicts_new_sections(model, tmp_path):
    new = registered(seed=1)
    new.write(tmp_path / "new.zarr")
    new = sd.read_zarr(tmp_path / "new.zarr")
    stp.tl.predict(new, model)
    predicted, measured = new.tables["predicted"], new.tables["table"][:, list(model.genes)]
    pcc = stp.metrics.pcc(measured.layers["log1p"].toarray(), np.asarray(predicted.X))
    assert pcc.min() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "other_model"}, "encoder is 'other_model', .* trained with 'my_model'"),
        ({"tile_um": 55.0}, r"tile_um is 55\.0, the model was trained with 112\.0"),
    ],
)
def test_predict_refuses_other_features(model, options, message):
    new = registered(seed=1, **options)
    with pytest.raises(ValueError, match=message):
        stp.tl.predict(new, model)


def test_predict_refuses_features_without_a_record(model):
    with pytest.raises(KeyError, match="features"):
        stp.tl.predict(phantom(seed=1), model)


def test_prepare_keeps_registered_features_and_computes_the_rest(model):
    new = registered(seed=1)
    values = features(new).copy()
    for slot in ("spatial_connectivities", "spatial_distances"):
        del new.tables["table"].obsp[slot]
    del new.tables["table"].layers["log1p"]
    stp.pp.prepare(new, model)
    np.testing.assert_array_equal(features(new), values)
    assert "log1p" in new.tables["table"].layers
    stp.tl.predict(new, model)


@pytest.mark.parametrize("sections", [phantom, lambda: registered(tile_um=55.0)])
def test_prepare_names_the_call_that_is_missing(model, sections):
    new = sections()
    call = r"register_embedding\(sdata, 'features', encoder='my_model', tile_um=112\)"
    with pytest.raises(ValueError, match=call):
        stp.pp.prepare(new, model)


def test_subtiles_are_registered_too(sdata):
    table = sdata.tables["table"]
    with pytest.raises(KeyError, match="n_subtiles=2, but obsm has no 'features_subtiles'"):
        stp.pp.register_embedding(sdata, "features", **STEP, n_subtiles=2)
    table.obsm["features_subtiles"] = np.ones((table.n_obs, 9, table.n_vars))
    with pytest.raises(ValueError, match=r"features_subtiles.* must be \(.*, 4, 6\)"):
        stp.pp.register_embedding(sdata, "features", **STEP, n_subtiles=2)
    table.obsm["features_subtiles"] = np.repeat(features(sdata)[:, None], 4, axis=1)
    stp.pp.register_embedding(sdata, "features", **STEP, n_subtiles=2)
    assert table.obsm["features_subtiles"].dtype == np.float32
    model = stp.tl.fit_ridge(sdata, embedding="features", context="spot_subspot")
    stp.tl.predict(sdata, model)


def test_a_copy_leaves_the_original_unchanged(sdata):
    changed = stp.pp.register_embedding(sdata, "features", **STEP, copy=True)
    assert open_table(changed).table.obsm["features"].dtype == np.float32
    assert features(sdata).dtype == np.float64
    assert "embed" not in sdata.tables["table"].uns["stpredict"]


def not_finite(table):
    table.obsm["features"][3, 1] = np.nan


def too_large(table):
    table.obsm["features"][3, 1] = 1e300


def stacked(table):
    table.obsm["features"] = np.ones((table.n_obs, 2, 2))


def integers(table):
    table.obsm["features"] = np.ones((table.n_obs, 3), dtype=int)


def missing(table):
    del table.obsm["features"]


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (not_finite, {}, ValueError, r"obsm\['features'\] has 1 values that are NaN or infinite"),
        (too_large, {}, ValueError, r"obsm\['features'\] has 1 values that are NaN or infinite"),
        (stacked, {}, ValueError, r"has the shape \(.*, 2, 2\); it must be \(.*, 2\)"),
        (integers, {}, TypeError, "must be floating-point numbers, not int64"),
        (missing, {}, KeyError, "obsm has no 'features'; available: spatial"),
        (None, {"tile_um": 0}, ValueError, "tile_um must be a number above 0"),
        (None, {"mpp": -1}, ValueError, "mpp must be a number above 0"),
        (None, {"n_subtiles": 0}, ValueError, "n_subtiles must be a whole number"),
        (None, {"encoder": ""}, ValueError, "encoder must be the name of an encoder"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_bad_input_changes_nothing(sdata, spoil, options, error, message):
    if spoil is not None:
        spoil(sdata.tables["table"])
    with pytest.raises(error, match=message):
        stp.pp.register_embedding(sdata, "features", **{**STEP, **options})
    assert "embed" not in sdata.tables["table"].uns["stpredict"]
