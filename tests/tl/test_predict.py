"""Predictions: a table like the measured one, from inputs that match the training."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import spatialdata as sd
import torch
from spatialdata.models import TableModel, get_table_keys

import stpredict as stp
from helpers import colour
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.training import pad_neighbors

FINE = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 3, "n_neighborhood": 3, "n_null": 2}
EMBED = {"key_added": "X_colour", "tile_um": 40, "n_subtiles": 2}


def other_colour(tiles):
    return colour(tiles) ** 2


@pytest.fixture(scope="module")
def trained():
    """Two sections, and a model trained on the first."""
    sdata = stp.datasets.phantom(2, size_px=800, **FINE)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=5)
    first, second = (sdata.subset([name, f"{name}_image"]) for name in ("S1", "S2"))
    stp.pp.embed(first, colour, **EMBED)
    stp.pp.neighbors(first)
    model = stp.tl.fit_deepspot(
        first,
        embedding="X_colour",
        context="spot_subspot_neighbors",
        standardize="training",  # as in `predict_array` without scaling
        network=stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=2, n_rho=2, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=3),
    )
    return model, second


@pytest.fixture
def model(trained):
    return trained[0]


@pytest.fixture(scope="module")
def ridge():
    """A baseline, trained on the first section."""
    sdata = stp.datasets.phantom(1, size_px=800, **FINE)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=5)
    stp.pp.embed(sdata, colour, **EMBED)
    return stp.tl.fit_ridge(sdata, embedding="X_colour", context="spot")


@pytest.fixture
def new(trained):
    """A section without any preprocessing."""
    return copy_of(trained[1])


@pytest.fixture
def ready(new, model):
    stp.pp.prepare(new, model, encoder=colour)
    return new


def test_the_table_of_predictions_annotates_the_same_shapes(ready, model):
    assert stp.tl.predict(ready, model) is None
    table, predicted = ready.tables["table"], ready.tables["predicted"]
    assert predicted.X.dtype == np.float32
    assert predicted.shape == (table.n_obs, len(model.genes))
    assert predicted.var_names.tolist() == list(model.genes)
    assert predicted.obs.equals(table.obs)
    assert get_table_keys(predicted) == get_table_keys(table)
    TableModel().validate(predicted)
    shapes, matched = sd.match_element_to_table(ready, "S2", "predicted")
    assert len(shapes["S2"]) == matched.n_obs == table.n_obs
    assert open_table(ready, "predicted").sections[0].name == "S2"


def test_the_table_has_positions_and_the_neighbourhood_graph(ready, model):
    stp.tl.predict(ready, model)
    table, predicted = ready.tables["table"], ready.tables["predicted"]
    np.testing.assert_array_equal(predicted.obsm["spatial"], table.obsm["spatial"])
    for key in ("spatial_connectivities", "spatial_distances"):
        assert (predicted.obsp[key] != table.obsp[key]).nnz == 0
    assert predicted.uns["spatial_neighbors"]["connectivities_key"] == "spatial_connectivities"


def test_predictions_equal_those_from_arrays(ready, model):
    stp.tl.predict(ready, model)
    table = ready.tables["table"]
    neighbors = pad_neighbors(table.obsp["spatial_connectivities"])
    center = table.obsm["X_colour"]
    direct = model.predict_array(
        center,
        table.obsm["X_colour_subtiles"],
        center[neighbors],
        neighbors >= 0,
    )
    np.testing.assert_allclose(ready.tables["predicted"].X, direct, rtol=0, atol=1e-5)


def test_each_model_has_its_own_table(ready, model, ridge):
    stp.tl.predict(ready, model)
    stp.tl.predict(ready, ridge, key_added="ridge")
    table, predicted = ready.tables["ridge"], ready.tables["predicted"]
    scaled = ridge.inputs.transform(ready.tables["table"].obsm["X_colour"])
    linear = ridge.network.linear
    outputs = scaled @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    np.testing.assert_allclose(table.X, ridge.targets.inverse(outputs), rtol=1e-4, atol=1e-5)
    assert table.uns["stpredict"]["predict"]["method"] == "ridge"
    assert predicted.uns["stpredict"]["predict"]["method"] == "deepspot"
    assert set(predicted.layers) - {None} == {"std"}  # anndata 0.13: None is X
    assert set(table.layers) - {None} == set()
    for prediction, fitted in ((predicted, model), (table, ridge)):
        np.testing.assert_array_equal(prediction.var["training_mean"], fitted.targets.mean)
        assert not prediction.var["constant"].any()


def test_the_table_records_its_model(ready, model):
    stp.tl.predict(ready, model)
    record = ready.tables["predicted"].uns["stpredict"]["predict"]
    assert record["method"] == "deepspot"
    assert record["units"] == "log(1 + counts per 10,000)"
    assert record["layer"] == "log1p"
    assert list(record["training_sections"]) == ["S1"]
    assert record["stpredict_version"]


def test_predictions_survive_writing_and_reading(ready, model, tmp_path):
    stp.tl.predict(ready, model)
    before = ready.tables["predicted"]
    ready.write(tmp_path / "new.zarr")
    read = sd.read_zarr(tmp_path / "new.zarr")
    after = read.tables["predicted"]
    np.testing.assert_array_equal(after.X, before.X)
    np.testing.assert_array_equal(after.layers["std"], before.layers["std"])
    assert after.var_names.tolist() == before.var_names.tolist()
    assert after.obs_names.tolist() == before.obs_names.tolist()
    assert after.var["constant"].dtype == bool
    assert get_table_keys(after) == get_table_keys(before)
    # what was read can be scored and predicted again
    scores, expected = (stp.tl.evaluate(each).genes() for each in (read, ready))
    np.testing.assert_allclose(scores["pcc"], expected["pcc"], atol=1e-6)
    stp.tl.predict(read, model)
    np.testing.assert_array_equal(read.tables["predicted"].X, before.X)


def test_predictions_survive_subset(trained, model):
    sdata = stp.datasets.phantom(2, size_px=800, **FINE)
    stp.pp.prepare(sdata, model, encoder=colour)
    stp.tl.predict(sdata, model)
    one = sdata.subset(["S2", "S2_image"])
    whole = sdata.tables["predicted"]
    rows = (whole.obs["region"] == "S2").to_numpy()
    np.testing.assert_array_equal(one.tables["predicted"].X, whole.X[rows])


def test_a_section_is_predicted_equally_alone_and_among_others(ready, model):
    both = stp.datasets.phantom(2, size_px=800, **FINE)
    stp.pp.prepare(both, model, encoder=colour)
    stp.tl.predict(both, model)
    stp.tl.predict(ready, model)
    rows = (both.tables["table"].obs["region"] == "S2").to_numpy()
    together, alone = both.tables["predicted"].X[rows], ready.tables["predicted"].X
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("genes", [[], ["null_001"], ["null_001", "morphology_001"]])
def test_the_model_predicts_its_own_genes_whatever_genes_were_measured(new, ready, model, genes):
    stp.tl.predict(ready, model)
    expected = ready.tables["predicted"].X
    few = copy_of(new)
    few.tables["table"] = few.tables["table"][:, genes].copy()
    stp.pp.prepare(few, model, encoder=colour)
    stp.tl.predict(few, model)
    assert few.tables["predicted"].var_names.tolist() == list(model.genes)
    np.testing.assert_array_equal(few.tables["predicted"].X, expected)


def test_a_section_of_another_resolution_is_predicted(model):
    coarse = stp.datasets.phantom(size_px=400, **FINE | {"mpp": 1.0}, seed=3)
    stp.pp.prepare(coarse, model, encoder=colour)
    stp.tl.predict(coarse, model)
    record = coarse.tables["table"].uns["stpredict"]["embed"]["X_colour"]
    assert record["mpp"] == model.recipe.embed.mpp
    assert np.isfinite(coarse.tables["predicted"].X).all()


def test_a_second_prediction_replaces_the_first(ready, model):
    stp.tl.predict(ready, model)
    first = ready.tables["predicted"].X.copy()
    ready.tables["table"].obsm["X_colour"][:] = ready.tables["table"].obsm["X_colour"][::-1]
    stp.tl.predict(ready, model)
    assert not np.array_equal(ready.tables["predicted"].X, first)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table", r"tables\['table'\] exists, and holds no predictions of stpredict"),
        ("S2", "key_added='S2' is the name of another element"),
        ("TABLE", r"differs from elements\['table'\] only in case"),
        ("a/b", "key_added='a/b' must be a name of letters"),
    ],
)
def test_predictions_overwrite_nothing_of_the_user(ready, model, name, message):
    names = [other for _, other, _ in ready.gen_elements()]
    with pytest.raises(ValueError, match=message):
        stp.tl.predict(ready, model, key_added=name)
    with pytest.raises(ValueError, match=message):  # before anything is fitted
        stp.tl.cross_validate(ready, {"never": lambda _: pytest.fail("fitted")}, key_added=name)
    assert [other for _, other, _ in ready.gen_elements()] == names


def test_a_table_of_another_name_is_fitted_predicted_and_evaluated():
    sections = stp.datasets.phantom(4, size_px=800, **FINE)
    sections.tables["spots"] = sections.tables.pop("table")
    names = ("S1", "S2", "S3")
    sdata = sections.subset([element for name in names for element in (name, f"{name}_image")])
    options = {"table_name": "spots"}
    stp.pp.normalize(sdata, **options)
    stp.pp.select_genes(sdata, n_top_genes=5, **options)
    stp.pp.embed(sdata, colour, **EMBED, **options)
    stp.pp.neighbors(sdata, **options)
    model = stp.tl.fit_ridge(sdata, embedding="X_colour", **options)
    new = sections.subset(["S4", "S4_image"])
    stp.pp.prepare(new, model, encoder=colour, **options)
    stp.tl.predict(new, model, key_added="ridge", **options)
    scores = stp.tl.evaluate(new, "ridge", **options)
    assert scores.summary().loc["ridge", "pcc"] > 0.2

    def ridge(train):
        assert list(train.tables) == ["spots"]
        return stp.tl.fit_ridge(train, embedding="X_colour", **options)

    validated = stp.tl.cross_validate(sdata, {"ridge": ridge}, **options, key_added="held_out")
    assert not validated.failures
    assert {"ridge", "tuned_ridge"} <= set(sdata.tables["held_out"].layers)
    calibrated = stp.tl.calibrate(sdata, model, method="ridge", key="held_out", **options)
    assert calibrated.calibration.groups == ("P1", "P2", "P3")
    assert set(sdata.tables) == {"spots", "held_out"}
    assert set(new.tables) == {"spots", "ridge"}


# ---- inputs that are missing or differ --------------------------------------------


def refused(sdata, model, error, message):
    before = set(sdata.tables)
    with pytest.raises(error, match=message) as raised:
        stp.tl.predict(sdata, model)
    assert "stp.pp." in str(raised.value)
    assert set(sdata.tables) == before


def test_unprepared_sections_are_refused(new, model):
    refused(new, model, KeyError, r"no embedding 'X_colour'.*stp\.pp\.prepare")


def test_a_missing_graph_is_refused(ready, model):
    del ready.tables["table"].obsp["spatial_connectivities"]
    refused(ready, model, KeyError, r"no neighbourhood graph.*stp\.pp\.prepare")


def test_missing_subtiles_are_refused(ready, model):
    del ready.tables["table"].obsm["X_colour_subtiles"]
    refused(ready, model, KeyError, "X_colour_subtiles")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_um": 60}, r"tile_um is 60\.0, the model was trained with 40\.0"),
        ({"n_subtiles": 3}, "n_subtiles is 3, the model was trained with 2"),
        ({"encoder": other_colour}, "weights_hash is '[0-9a-f]+', the model was trained with"),
        (
            {"encoder": "texture", "tile_um": 60},
            "encoder is 'texture', the model was trained with 'colour'",
        ),
    ],
)
def test_tiles_embedded_differently_are_refused(ready, model, changes, message):
    encoder = changes.get("encoder", colour)
    stp.pp.embed(ready, encoder, **EMBED | {k: v for k, v in changes.items() if k != "encoder"})
    refused(ready, model, ValueError, rf"embed step .*differently: .*{message}.*stp\.pp\.prepare")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"n_rings": 2}, "n_rings is 2, the model was trained with 1"),
        ({"n_neighbors": 6}, "grid is None, the model was trained with 'hexagonal'"),
    ],
)
def test_another_rule_for_neighbours_is_refused(ready, model, rule, message):
    stp.pp.neighbors(ready, **rule)
    refused(ready, model, ValueError, rf"neighbors step .*{message}.*stp\.pp\.prepare")


@pytest.mark.parametrize("slot", ["X_colour", "X_colour_subtiles"])
def test_an_embedding_with_nan_is_refused(ready, model, slot):
    ready.tables["table"].obsm[slot][3, ..., 0] = np.nan
    with pytest.raises(ValueError, match=rf"obsm\['{slot}'\] has \d values that are NaN"):
        stp.tl.predict(ready, model)
    assert "predicted" not in ready.tables


def test_inputs_outside_the_context_are_not_required(new):
    sdata = stp.datasets.phantom(size_px=800, **FINE)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, colour, **EMBED)
    model = stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        context="spot",
        genes=["null_001"],
        network=stp.tl.DeepSpotNetwork(n_hidden=4, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=1),
    )
    stp.pp.embed(new, colour, **EMBED | {"n_subtiles": 1})
    stp.tl.predict(new, model)
    assert new.tables["predicted"].n_vars == 1


class TestNegativeValues:
    """Predictions are not negative where their units cannot be."""

    def lowered(self, model, by=50.0):
        """The model with a lower intercept for its first gene."""
        network = copy.deepcopy(model.network)
        with torch.no_grad():
            network.linear.bias[0] -= by
        return replace(model, network=network)

    def fitted(self, new, layer, **options):
        """A model of a layer, with predictions below 0 for its first gene."""
        stp.pp.embed(new, colour, **EMBED)
        model = stp.tl.fit_ridge(
            new, embedding="X_colour", context="spot", layer=layer, alpha=1.0, **options
        )
        return self.lowered(model)

    def predict(self, sdata, model, **options):
        stp.tl.predict(sdata, model, **options)
        table = sdata.tables["predicted"]
        return table, table.uns["stpredict"]["predict"].get("minimum")

    def test_log_counts_are_clipped(self, new, ridge):
        stp.pp.prepare(new, ridge, encoder=colour)
        usual = self.predict(new, ridge)[0].X
        model = self.lowered(ridge)
        table, minimum = self.predict(new, model)
        assert minimum == 0
        assert (table.X[:, 0] == 0).all()
        np.testing.assert_allclose(table.X[:, 1:], np.maximum(usual[:, 1:], 0), atol=1e-5)
        center = new.tables["table"].obsm["X_colour"]
        np.testing.assert_allclose(model.predict_array(center), table.X, atol=1e-5)

    def test_raw_counts_and_counts_per_10000_are_clipped(self, new):
        model = self.fitted(new, None)
        table, minimum = self.predict(new, model)
        assert (model.units, minimum, table.X.min()) == ("counts", 0, 0)
        assert replace(model, units="counts per 10,000").nonnegative

    def test_smoothed_log_counts_are_clipped_and_ranks_are_not(self, new):
        stp.pp.smooth(new, n_neighbors=3, by="expression")
        assert self.fitted(new, "smoothed").nonnegative
        stp.pp.rank_expression(new)
        table, minimum = self.predict(new, self.fitted(new, "ranks"))
        assert minimum is None
        assert table.X.min() < 0

    def test_scaled_values_are_not_clipped(self, new):
        table = new.tables["table"]
        values = table.layers["log1p"].toarray()
        table.layers["scaled"] = values - values.mean(axis=0)
        assert self.predict(new, self.fitted(new, "scaled"))[0].X.min() < -1
        table.X = table.layers["scaled"]
        model = self.fitted(new, None)
        predicted, minimum = self.predict(new, model)
        assert (model.units, minimum) == ("X", None)
        assert predicted.X.min() < -1

    def test_factors_are_not_clipped_but_their_genes_are(self, new):
        stp.pp.embed(new, colour, **EMBED)
        model = stp.tl.fit_ridge(new, embedding="X_colour", context="spot", alpha=1.0,
                                 targets="svd", n_factors=2)  # fmt: skip
        table, minimum = self.predict(new, self.lowered(model), space="factors")
        assert minimum is None
        assert table.X.min() < 0
        assert self.predict(new, self.lowered(model))[0].X.min() == 0

    def test_the_spread_is_that_of_clipped_members(self, model, new):
        stp.pp.prepare(new, model, encoder=colour)
        network = copy.deepcopy(model.network)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.shape[-1] == len(model.genes) and "bias" in name:
                    parameter -= 1e3
        table, _ = self.predict(new, replace(model, network=network))
        assert (table.X == 0).all()
        assert (table.layers["std"] == 0).all()
