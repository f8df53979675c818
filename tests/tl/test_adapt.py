"""Predictions corrected by measured spots: recovery of planted fields, intervals, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

import stpredict as stp
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.tl._adaptation import _process
from stpredict.tl._adaptation._correct import SHARED, _errors, correct, main_directions
from stpredict.tl._adaptation._process import (
    Covariance,
    Grid,
    Places,
    average,
    log_evidence,
    standardised,
)


def mean_colour(tiles):
    return tiles.mean((-2, -1))


def one(length, linear, noise):
    """A grid of a single combination."""
    return Grid((length,), (linear,), (noise,), noise=noise, noise_spread=1.0)


def places_of(n_spots=30, n_features=3, seed=0):
    random = np.random.default_rng(seed)
    features = standardised(random.normal(size=(n_spots, n_features)))
    return Places(random.random((n_spots, 2)) * 6, features)


def covariance_of(places, length, linear):
    """The kernel, spot by spot."""
    n_spots = len(places)
    matrix = np.empty((n_spots, n_spots))
    for i in range(n_spots):
        for j in range(n_spots):
            distance = np.linalg.norm(places.positions[i] - places.positions[j])
            product = places.features[i] @ places.features[j]
            matrix[i, j] = np.exp(-(distance**2) / (2 * length**2)) + 1 + linear * product
    return matrix


def test_the_posterior_over_space_is_that_of_scikit_learn():
    places, rows = places_of(), np.arange(0, 30, 2)
    values = np.random.default_rng(1).normal(size=(15, 2))
    posterior, _ = average(places, rows, values, one(1.5, 0.0, 0.7))
    process = GaussianProcessRegressor(
        RBF(1.5) + ConstantKernel(1.0), alpha=0.7, optimizer=None
    ).fit(places.positions[rows], values)
    mean, std = process.predict(places.positions, return_std=True)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-8)
    # scikit-learn has unit signal variance
    matrix = covariance_of(places, 1.5, 0.0)[np.ix_(rows, rows)] + 0.7 * np.eye(15)
    scale = np.einsum("ik,ij,jk->k", values, np.linalg.inv(matrix), values) / 15
    np.testing.assert_allclose(posterior.variance, std**2 * scale, atol=1e-8)


def test_the_posterior_without_a_spot_is_that_of_the_other_spots():
    places, rows = places_of(), np.arange(0, 30, 2)
    values = np.random.default_rng(1).normal(size=(15, 2))
    _, left_out = average(places, rows, values, one(1.5, 0.4, 0.7))
    kernel = covariance_of(places, 1.5, 0.4)
    whole = np.linalg.inv(kernel[np.ix_(rows, rows)] + 0.7 * np.eye(15))
    scale = np.einsum("ik,ij,jk->k", values, whole, values) / 15
    for i, row in enumerate(rows):
        others = np.delete(rows, i)
        inverse = np.linalg.inv(kernel[np.ix_(others, others)] + 0.7 * np.eye(14))
        mean = kernel[row, others] @ inverse @ np.delete(values, i, axis=0)
        variance = kernel[row, row] - kernel[row, others] @ inverse @ kernel[others, row]
        np.testing.assert_allclose(left_out.mean[i], mean, atol=1e-8)
        np.testing.assert_allclose(left_out.variance[i], variance * scale, atol=1e-8)


def test_hyperparameters_are_weighted_by_the_marginal_likelihood():
    places = places_of()
    values = np.random.default_rng(1).normal(size=(30, 1))
    expected, evidence = [], []
    for length, linear, noise in [(1.0, 0.0, 1.0), (3.0, 0.5, 0.2)]:
        matrix = covariance_of(places, length, linear) + noise * np.eye(30)
        scale = (values.T @ np.linalg.inv(matrix) @ values).item() / 30
        best = multivariate_normal(np.zeros(30), scale * matrix).logpdf(values[:, 0])
        expected.append(best)
        evidence.append(log_evidence([(places, values)], Covariance(length, linear, noise)).item())
    assert evidence[1] - evidence[0] == pytest.approx(expected[1] - expected[0])


def test_the_evidence_of_blocks_is_that_of_spots_that_do_not_covary():
    near = places_of()
    far = Places(near.positions + 10, near.features)
    values = np.random.default_rng(1).normal(size=(60, 1))
    covariance = Covariance(1.5, 0.3, 0.7)
    blocks = [(near, values[:30]), (far, values[30:])]
    matrix = np.zeros((60, 60))
    matrix[:30, :30] = matrix[30:, 30:] = covariance_of(near, 1.5, 0.3) + 0.7 * np.eye(30)
    scale = (values.T @ np.linalg.inv(matrix) @ values).item() / 60
    expected = multivariate_normal(np.zeros(60), scale * matrix).logpdf(values[:, 0])
    other = Covariance(1.0, 0.0, 2.0)
    matrix[:30, :30] = matrix[30:, 30:] = covariance_of(near, 1.0, 0.0) + 2.0 * np.eye(30)
    scale = (values.T @ np.linalg.inv(matrix) @ values).item() / 60
    expected -= multivariate_normal(np.zeros(60), scale * matrix).logpdf(values[:, 0])
    difference = log_evidence(blocks, covariance) - log_evidence(blocks, other)
    assert difference.item() == pytest.approx(expected)


def test_many_measured_spots_are_corrected():
    """More than fit into a block of the evidence."""
    random = np.random.default_rng(0)
    positions = np.stack(np.meshgrid(np.arange(32.0), np.arange(32.0)), axis=-1).reshape(-1, 2)
    places = Places(positions, standardised(random.normal(size=(1024, 2))))
    field = np.sin(positions / 3)
    rows = np.sort(random.permutation(1024)[:600])
    posterior, _ = average(places, rows, field[rows], SHARED)
    rest = np.setdiff1d(np.arange(1024), rows)
    assert stp.metrics.pcc(field[rest], posterior.mean[rest]).min() > 0.99


def test_the_nearest_measured_spots_give_nearly_the_result_of_all(monkeypatch):
    random = np.random.default_rng(0)
    positions = np.stack(np.meshgrid(np.arange(32.0), np.arange(32.0)), axis=-1).reshape(-1, 2)
    places = Places(positions, standardised(random.normal(size=(1024, 2))))
    rows = np.sort(random.permutation(1024)[:500])
    values = np.sin(positions / 3)[rows] + 0.3 * random.normal(size=(500, 2))
    everywhere, left_out = average(places, rows, values, one(2.0, 0.1, 0.2))
    monkeypatch.setattr(_process, "_MOST_NEAR", 200)
    monkeypatch.setattr(_process, "_BLOCK", 60)
    monkeypatch.setattr(_process, "_PLACES", 50)
    near, near_left_out = average(places, rows, values, one(2.0, 0.1, 0.2))
    for exact, local in ((everywhere, near), (left_out, near_left_out)):
        error = np.sqrt(((local.mean - exact.mean) ** 2).mean())
        assert 0 < error < 0.05  # a sixth of the noise
        assert np.abs(np.log(local.variance / exact.variance)).mean() < 0.3


@pytest.mark.parametrize("factor", [1, 4])
def test_intervals_are_as_wide_as_the_errors_of_unusual_spots(factor):
    random = np.random.default_rng(0)
    signal = np.tile(random.uniform(0, 1, (400, 1)), (1, 60))
    variance = 0.6 + signal + (factor - 1) * np.maximum(signal - 0.5, 0)
    errors = np.sqrt(variance) * random.normal(size=signal.shape)
    std, lowest, highest = _errors(errors, signal, signal)
    for rows in (signal[:, 0] < 0.5, signal[:, 0] > 0.75):
        inside = (lowest * std < errors) & (errors < highest * std)
        assert 0.88 < inside[rows].mean() < 0.92
        assert std[rows].mean() == pytest.approx(np.sqrt(variance[rows]).mean(), rel=0.1)


def test_directions_are_those_of_the_largest_variance():
    random = np.random.default_rng(0)
    values = random.normal(size=(50, 2)) * [5, 2] @ np.eye(2, 6)
    np.testing.assert_allclose(np.abs(main_directions(values)), np.eye(2, 6), atol=0.2)
    assert main_directions(np.ones((9, 4))).shape == (0, 4)


def test_predictions_that_do_not_vary_are_corrected_gene_by_gene():
    places = places_of(n_spots=200, seed=2)
    field = np.sin(places.positions)  # two genes
    rows = np.arange(0, 200, 2)
    constant = np.zeros((200, 2))
    result = correct(
        places, rows, constant, field[rows], directions=main_directions(constant), nonnegative=False
    )
    unmeasured = np.setdiff1d(np.arange(200), rows)
    assert stp.metrics.pcc(field[unmeasured], result.values[unmeasured]).min() > 0.8


# a phantom with a planted field

SIZE = {"size_px": 1000, "mpp": 0.5, "pitch_um": 30.0}


@pytest.fixture(scope="module")
def trained():
    sdata = stp.datasets.phantom(
        2, **SIZE, n_morphology=8, n_neighborhood=2, n_null=2, counts_per_spot=20_000
    )
    stp.pp.normalize(sdata)
    genes = sdata["table"].var_names[:10].tolist()
    stp.pp.select_genes(sdata, genes=genes)
    stp.pp.embed(sdata, mean_colour, key_added="X_colour", tile_um=30, n_subtiles=1)
    model = stp.tl.fit_ridge(sdata, embedding="X_colour", context="spot", alpha=1.0)
    stp.tl.predict(sdata, model)
    sdata["table"].obs["sequenced"] = every(4, sdata)
    return sdata, model


@pytest.fixture
def sdata(trained):
    return copy_of(trained[0])


@pytest.fixture
def model(trained):
    return trained[1]


def every(step, sdata):
    return np.arange(sdata["table"].n_obs) % step == 0


def field_of(spots, length_um, seed=0):
    """A smooth random field with unit variance in each section, (n_obs,)."""
    field = np.empty(spots.table.n_obs)
    for section in spots.sections:
        random = np.random.default_rng([seed, *map(ord, section.name)])
        waves = random.normal(size=(2, 300)) / length_um
        phases = random.random(300) * 2 * np.pi
        field[section.rows] = np.cos(section.centers_um @ waves + phases).sum(axis=1)
    return field * np.sqrt(2 / 300)


def plant(sdata, model, *, noise, length_um=90.0, seed=0):
    """Replace expression by predictions, a field along their main direction, and noise."""
    spots = open_table(sdata)
    direction = main_directions(np.asarray(sdata["predicted"].X, dtype=np.float64))[0]
    truth = 3 + np.outer(field_of(spots, length_um, seed), direction)
    columns = sdata["table"].var_names.get_indexer(list(model.genes))
    layer = sdata["table"].layers["log1p"].toarray()
    random = np.random.default_rng(seed)
    expected = np.asarray(sdata["predicted"].X) + truth
    layer[:, columns] = np.maximum(expected + noise * random.normal(size=expected.shape), 0)
    sdata["table"].layers["log1p"] = layer.astype(np.float32)
    return expected, layer[:, columns]


def test_a_planted_field_is_recovered_where_measured_spots_determine_it(sdata, model):
    expected, _ = plant(sdata, model, noise=0.3)
    mask = every(3, sdata)
    stp.tl.adapt(sdata, model, measured=mask)
    adapted, alone = (np.asarray(sdata[name].X, dtype=float) for name in ("adapted", "predicted"))
    rest = ~mask
    error = np.sqrt(((adapted - expected)[rest] ** 2).mean())
    # the level of 3 and most of the field, whose genes have a standard deviation of 0.3
    assert error < 0.2 < 3 < np.sqrt(((alone - expected)[rest] ** 2).mean())
    scores = stp.metrics.pcc(expected[rest], adapted[rest])
    assert scores.mean() > stp.metrics.pcc(expected[rest], alone[rest]).mean()
    assert stp.metrics.pcc((expected - alone)[rest], (adapted - alone)[rest]).max() > 0.95


@pytest.mark.parametrize("step", [20, 5, 2])
def test_intervals_cover_the_values_of_spots_that_are_not_measured(sdata, model, step):
    covered = []
    for seed in range(4):
        changed = copy_of(sdata)
        _, measured = plant(changed, model, noise=0.3, seed=seed)
        mask = every(step, changed)
        stp.tl.adapt(changed, model, measured=mask)
        layers = changed["adapted"].layers
        inside = (layers["lower"] <= measured) & (measured <= layers["upper"])
        covered.append(inside[~mask].mean())
    assert 0.86 < np.mean(covered) < 0.94


def test_intervals_are_narrower_near_measured_spots(sdata, model):
    plant(sdata, model, noise=0.05)
    spots = open_table(sdata)
    mask = np.zeros(sdata["table"].n_obs, dtype=bool)
    for section in spots.sections:
        mask[section.rows] = section.centers_um[:, 0] < np.median(section.centers_um[:, 0])
    stp.tl.adapt(sdata, model, measured=mask)
    width = sdata["adapted"].layers["upper"] - sdata["adapted"].layers["lower"]
    for section in spots.sections:
        x = section.centers_um[:, 0]
        beyond = x - np.median(x)
        near, far = (beyond > 0) & (beyond < 60), beyond > 150
        assert width[section.rows[near]].mean() < 0.8 * width[section.rows[far]].mean()
    std = sdata["adapted"].layers["std"]
    assert std[mask].mean() < 0.7 * std[~mask].mean()


def test_measured_spots_hold_their_expression_without_noise(sdata, model):
    expected, measured = plant(sdata, model, noise=0.3)
    mask = every(3, sdata)
    stp.tl.adapt(sdata, model, measured=mask)
    error = np.sqrt(((np.asarray(sdata["adapted"].X) - expected)[mask] ** 2).mean())
    assert error < 0.6 * np.sqrt(((measured - expected)[mask] ** 2).mean())


def garbage(values, rows):
    values = values.toarray() if sp.issparse(values) else np.array(values)
    values[rows] = np.nan
    return values


def test_expression_of_other_spots_is_not_read(sdata, model):
    stp.tl.adapt(sdata, model, measured="sequenced")
    others = np.flatnonzero(~sdata["table"].obs["sequenced"])
    changed = copy_of(sdata)
    table = changed["table"]
    table.X = garbage(table.X, others)
    table.layers["log1p"] = garbage(table.layers["log1p"], others)
    table.layers["expected"] = garbage(table.layers["expected"], others)
    stp.tl.adapt(changed, model, measured="sequenced", key_added="again")
    for name in (None, "std", "lower", "upper"):
        first, second = (
            one.X if name is None else one.layers[name]
            for one in (sdata["adapted"], changed["again"])
        )
        np.testing.assert_array_equal(first, second)


def test_every_section_is_corrected_by_its_own_spots(sdata, model):
    plant(sdata, model, noise=0.3)
    stp.tl.adapt(sdata, model, measured="sequenced")
    for name in ("S1", "S2"):
        alone = sdata.subset([name, f"{name}_image"], filter_tables=True)
        stp.tl.adapt(alone, model, measured="sequenced", key_added="alone")
        both = sdata["adapted"][alone["alone"].obs_names]
        np.testing.assert_allclose(both.X, alone["alone"].X, atol=1e-5)
        np.testing.assert_allclose(both.layers["upper"], alone["alone"].layers["upper"], atol=1e-4)


def test_a_section_without_measured_spots_keeps_the_predictions_of_the_model(sdata, model):
    in_first = (sdata["table"].obs["region"] == "S1").to_numpy()
    stp.tl.adapt(sdata, model, measured=every(4, sdata) & in_first)
    adapted, predicted = sdata["adapted"], sdata["predicted"]
    np.testing.assert_array_equal(adapted.X[~in_first], predicted.X[~in_first])
    assert np.isnan(adapted.layers["lower"][~in_first]).all()
    assert not np.isnan(adapted.layers["lower"][in_first]).any()
    assert (adapted.X[in_first] != predicted.X[in_first]).mean() > 0.9
    assert adapted.uns["stpredict"]["adapt"]["n_measured"] == {
        "S1": int((every(4, sdata) & in_first).sum())
    }


def test_the_table_survives_zarr(sdata, model, tmp_path):
    stp.tl.adapt(sdata, model, measured="sequenced")
    sdata.write(tmp_path / "adapted.zarr")
    adapted, read = sdata["adapted"], sd.read_zarr(tmp_path / "adapted.zarr")["adapted"]
    np.testing.assert_array_equal(read.X, adapted.X)
    for name in ("std", "lower", "upper"):
        np.testing.assert_array_equal(read.layers[name], adapted.layers[name])
    np.testing.assert_array_equal(read.obs["measured"], adapted.obs["measured"])
    assert adapted.X.dtype == adapted.layers["std"].dtype == np.float32
    assert (adapted.layers["lower"] <= adapted.X).all()
    assert (adapted.layers["upper"] >= adapted.X).all()


def test_a_column_a_mask_and_a_series_are_the_same(sdata, model):
    column = sdata["table"].obs["sequenced"]
    results = []
    for measured in ("sequenced", column, column.to_numpy(), column.tolist()):
        stp.tl.adapt(sdata, model, measured=measured)
        results.append(np.asarray(sdata["adapted"].X))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_scores_leave_out_the_spots_that_were_used(sdata, model):
    stp.tl.adapt(sdata, model, measured="sequenced")
    scores = stp.tl.evaluate(sdata, ["predicted", "adapted"])
    rest = ~sdata["table"].obs["sequenced"].to_numpy()
    values = sdata["table"][:, list(model.genes)].layers["log1p"].toarray()
    in_first = (sdata["table"].obs["region"] == "S1").to_numpy() & rest
    table = scores.table
    first = table[(table["section"] == "S1") & (table["metric"] == "pcc")]
    for name in ("predicted", "adapted"):
        expected = stp.metrics.pcc(values[in_first], np.asarray(sdata[name].X)[in_first])
        by_gene = first[first["method"] == name].set_index("gene")["value"]
        np.testing.assert_allclose(by_gene[list(model.genes)], expected, atol=1e-6)
    assert "not scored" in repr(scores)


SMALL = {"embedding": "X_colour", "context": "spot", "schedule": stp.tl.Schedule(max_epochs=1)}
RIDGE = {"embedding": "X_colour", "context": "spot", "alpha": 1.0}
METHODS = {
    "svd": lambda sdata: stp.tl.fit_ridge(sdata, targets="svd", n_factors=3, **RIDGE),
    "trees": lambda sdata: stp.tl.fit_trees(sdata, embedding="X_colour", context="spot", n_trees=3),
    "deepspot": lambda sdata: stp.tl.fit_deepspot(sdata, **SMALL),
    "counts": lambda sdata: stp.tl.fit_deepspot(sdata, layer=None, loss="poisson", **SMALL),
    "ranks": lambda sdata: stp.tl.fit_ridge(sdata, layer="ranks", **RIDGE),
    "stack": lambda sdata: stp.tl.fit_stacking(
        sdata, {"a": lambda part: stp.tl.fit_ridge(part, **RIDGE), "b": METHODS["svd"]}
    ),
    "pixels": lambda sdata: stp.tl.fit_cnn(
        sdata,
        tile_um=30.0,
        network=stp.tl.CNNNetwork(tile_px=32),
        schedule=stp.tl.Schedule(max_epochs=1),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_kind_of_model_is_corrected_in_its_units(trained, name):
    sdata = copy_of(trained[0])
    if name == "ranks":
        stp.pp.rank_expression(sdata)
    model = METHODS[name](sdata)
    stp.tl.predict(sdata, model, key_added="alone")
    stp.tl.adapt(sdata, model, measured=every(2, sdata))
    scores = stp.tl.evaluate(sdata, ["alone", "adapted"])
    rmse = scores.summary()["rmse"]
    assert rmse["adapted"] < rmse["alone"]


def unchanged(sdata, model, error, message, **options):
    """The call fails with the message, and no table is changed or written."""
    before = {
        name: (id(table), sorted(map(str, table.layers))) for name, table in sdata.tables.items()
    }
    with pytest.raises(error, match=message):
        stp.tl.adapt(sdata, model, **options)
    after = {
        name: (id(table), sorted(map(str, table.layers))) for name, table in sdata.tables.items()
    }
    assert after == before


@pytest.mark.parametrize(
    ("measured", "error", "message"),
    [
        ("absent", KeyError, "measured='absent'"),
        ("region", TypeError, "obs.'region'.* must hold booleans"),
        (lambda n: np.zeros(n, dtype=bool), ValueError, "marks no spot.*stp.tl.predict"),
        (lambda n: np.ones(n, dtype=bool), ValueError, "marks all .* of section 'S1'"),
        (lambda n: np.arange(n) < 4, ValueError, "marks 4 spots of section 'S1'.*at least 5"),
        (lambda n: np.arange(n + 1) % 2 == 0, ValueError, "has the shape"),
        (lambda n: np.ones((n, 2), dtype=bool), ValueError, "has the shape"),
        (lambda n: np.arange(n) % 2, TypeError, "must hold booleans, not int"),
        (lambda n: [0.5] * n, TypeError, "must hold booleans, not float"),
        (lambda n: pd.Series(np.arange(n) % 2 == 0), ValueError, "index of measured"),
        (lambda n: 3, TypeError, "measured must be a column"),
        (lambda n: [[True], [True, False]], TypeError, "measured must be one list"),
    ],
)
def test_bad_masks_are_refused(sdata, model, measured, error, message):
    measured = measured(sdata["table"].n_obs) if callable(measured) else measured
    unchanged(sdata, model, error, message, measured=measured)


def test_missing_values_in_a_mask_are_refused(sdata, model):
    column = sdata["table"].obs["sequenced"].astype("boolean")
    column.iloc[3] = pd.NA
    sdata["table"].obs["sequenced"] = column
    unchanged(sdata, model, ValueError, "1 missing values", measured="sequenced")


def test_measured_spots_outside_the_image_are_refused(sdata, model):
    shapes = sdata.shapes["S1"]
    row = int(np.flatnonzero(sdata["table"].obs["sequenced"])[0])
    shapes.geometry = [
        point if i != row else type(point)(-500, -500) for i, point in enumerate(shapes.geometry)
    ]
    unchanged(sdata, model, ValueError, "outside the image.*measured=", measured="sequenced")


def test_spots_in_one_place_are_refused(sdata, model):
    shapes = sdata.shapes["S1"]
    shapes.geometry = [shapes.geometry.iloc[0]] * len(shapes)
    unchanged(sdata, model, ValueError, "lie in one place", measured="sequenced")


def test_measured_values_in_other_units_are_refused(sdata, model):
    stp.pp.normalize(sdata, target_sum=1e6)
    unchanged(sdata, model, ValueError, "1,000,000", measured="sequenced")


def test_a_layer_with_nan_in_measured_spots_is_refused(sdata, model):
    rows = np.flatnonzero(sdata["table"].obs["sequenced"])[:1]
    sdata["table"].layers["log1p"] = garbage(sdata["table"].layers["log1p"], rows)
    unchanged(sdata, model, ValueError, "NaN or infinite", measured="sequenced")


def test_a_model_of_genes_that_are_not_measured_is_refused(sdata, model):
    gene = model.genes[0]
    sdata["table"].var_names = [
        "other" if name == gene else name for name in sdata["table"].var_names
    ]
    unchanged(sdata, model, KeyError, gene, measured="sequenced")


def test_a_model_of_other_inputs_is_refused(sdata, model):
    del sdata["table"].obsm["X_colour"]
    unchanged(sdata, model, KeyError, "X_colour", measured="sequenced")


def test_smoothed_expression_is_refused(sdata):
    stp.pp.neighbors(sdata)
    stp.pp.smooth(sdata)
    model = stp.tl.fit_ridge(
        sdata, embedding="X_colour", context="spot", alpha=1.0, layer="smoothed"
    )
    unchanged(sdata, model, ValueError, "smoothing mixes", measured="sequenced")


def test_a_model_that_does_not_report_its_units_is_refused(sdata, model):
    published = replace(model, training=replace(model.training, sections=()))
    unchanged(sdata, published, ValueError, "does not report its units", measured="sequenced")


def test_a_model_of_high_expression_is_refused(sdata):
    model = stp.tl.fit_deepspot(sdata, targets="high", **SMALL)
    unchanged(sdata, model, ValueError, "probability of high", measured="sequenced")


def test_a_table_of_the_user_is_not_overwritten(sdata, model):
    sdata["mine"] = sdata["table"].copy()
    unchanged(sdata, model, ValueError, "mine", measured="sequenced", key_added="mine")
