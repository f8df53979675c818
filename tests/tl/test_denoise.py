"""Expression without counting noise: planted truth, halves of the reads, and its provenance."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import spatialdata as sd

import stpredict as stp
from helpers import colour, only, prepared_phantom
from stpredict._sdata._spot_table import copy_of, layer_names, open_table
from stpredict.datasets._phantom_parts._truth import planted_at
from stpredict.tl._adaptation._measured import all_rows, read_measured
from stpredict.tl._adaptation._noise import CountingNoise, signal_of_spots
from stpredict.tl._adaptation._table import Correction

GENES = {"n_morphology": 12, "n_neighborhood": 2, "n_null": 4}


@pytest.fixture(scope="module")
def trained():
    """A new section, measured everywhere, and a model of two others."""
    sdata = prepared_phantom(
        3,
        {"size_px": 1000, "counts_per_spot": 1500, **GENES},
        select={"genes": [f"morphology_{i:03}" for i in range(1, 13)]},
    )
    training, new = only(sdata, ["S1", "S2"]), only(sdata, ["S3"])
    model = stp.tl.fit_ridge(training, embedding=embedding(sdata), context="spot", alpha=1.0)
    stp.tl.predict(new, model)
    return new, model


@pytest.fixture
def sdata(trained):
    return copy_of(trained[0])


@pytest.fixture
def model(trained):
    return trained[1]


def embedding(sdata):
    return next(name for name in sdata["table"].obsm if name.startswith("X_"))


def values(sdata, model, layer):
    matrix = sdata["table"][:, list(model.genes)].layers[layer]
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=float)


def rmse(truth, predicted):
    return np.sqrt(((truth - np.asarray(predicted)) ** 2).mean())


def test_denoised_expression_is_closer_to_the_truth_than_measurement_and_model(sdata, model):
    stp.tl.denoise(sdata, model)
    truth = values(sdata, model, "expected")
    error = rmse(truth, sdata["denoised"].X)
    assert error < 0.7 * rmse(truth, values(sdata, model, "log1p"))
    assert error < 0.9 * rmse(truth, sdata["predicted"].X)


def halves(sdata, seed=0):
    """Two measurements of the same spots, each with half of the reads."""
    counts = np.asarray(sdata["table"].X.toarray(), dtype=int)
    first = np.random.default_rng(seed).binomial(counts, 0.5)
    result = []
    for reads in (first, counts - first):
        half = copy_of(sdata)
        half["table"].X = reads.astype(np.float32)
        stp.pp.normalize(half)
        result.append(half)
    return result


def test_one_half_of_the_reads_predicts_the_other(sdata, model):
    first, second = halves(sdata)
    stp.tl.denoise(first, model)
    denoised, other = first["denoised"], values(second, model, "log1p")
    by_method = {
        "denoised": denoised.X,
        "measured": values(first, model, "log1p"),
        "model": first["predicted"].X,
    }
    pcc = {name: stp.metrics.pcc(other, np.asarray(x)).mean() for name, x in by_method.items()}
    assert pcc["denoised"] > max(pcc["measured"], pcc["model"])
    inside = (denoised.layers["lower"] <= other) & (other <= denoised.layers["upper"])
    # at least: the halves share the dispersion of the phantom, which is taken for noise
    assert inside.mean() > 0.87


def test_signal_of_single_spots_is_kept(sdata, model):
    """Counts of random spots are changed in all genes, which no process over space explains."""
    table = sdata["table"]
    random = np.random.default_rng(0)
    factor = np.exp(0.8 * random.normal(size=(table.n_obs, 6)))
    columns = table.var_names.get_indexer(list(model.genes))[:6]
    counts = table.X.toarray()
    rates = np.expm1(values(sdata, model, "expected")) * counts.sum(axis=1, keepdims=True) / 1e4
    counts[:, columns] = random.poisson(rates[:, :6] * factor)
    table.X = counts.astype(np.float32)
    stp.pp.normalize(sdata)
    truth = np.log1p(np.expm1(values(sdata, model, "expected"))[:, :6] * factor)
    stp.tl.denoise(sdata, model)
    kept = np.asarray(sdata["denoised"].X)[:, :6]
    sdata["table"].layers["log1p"] = sdata["table"].layers["log1p"] * 1.01  # not that of X
    assert read_measured(open_table(sdata), model, all_rows(open_table(sdata))).noise is None
    stp.tl.denoise(sdata, model)
    assert rmse(truth, kept) < 0.7 * rmse(truth, np.asarray(sdata["denoised"].X)[:, :6])


# the noise


def test_the_variance_of_counts_is_that_of_the_poisson_distribution():
    rates = np.array([0.05, 0.5, 3.0, 40.0])
    totals = np.full(4000, 2000.0)
    expected = np.log1p(np.tile(rates, (4000, 1)) * 1e4 / 2000)
    noise = CountingNoise(totals, 1e4).variance(expected, np.zeros((4000, 4)))
    counts = np.arange(200)
    for rate, variance in zip(rates, noise, strict=True):
        weights = scipy.stats.poisson.pmf(counts, rate)
        logs = np.log1p(counts * 1e4 / 2000)
        exact = weights @ logs**2 - (weights @ logs) ** 2
        assert variance == pytest.approx(exact, rel=0.1)


def test_a_dispersion_that_all_genes_share_is_noise_and_more_of_some_genes_is_not():
    random = np.random.default_rng(0)
    totals = np.full(3000, 2000.0)
    rates = np.full((3000, 8), 30.0)
    expected = np.log1p(rates * 5)
    poisson = CountingNoise(totals, 1e4).variance(expected, np.zeros((3000, 8)))
    dispersed = rates * random.gamma(1 / 0.1, 0.1, size=rates.shape)
    left = np.log1p(5.0 * random.poisson(dispersed)) - expected
    own = 0.7 * random.normal(size=(3000, 2))
    left[:, :2] += own
    noise = CountingNoise(totals, 1e4).variance(expected, left)
    np.testing.assert_allclose(noise, left[:, 2:].var(axis=0).mean(), rtol=0.15)
    assert (noise > 2 * poisson).all()
    signal, variance = signal_of_spots(left, noise, np.zeros((0, 8)))
    assert stp.metrics.pcc(own, signal[:, :2]).min() > 0.85
    assert np.abs(signal[:, 2:]).mean() < 0.1 * np.abs(own).mean()
    # the error of the signal is what its variance says
    error = ((signal[:, :2] - own) ** 2).mean(axis=0)
    np.testing.assert_allclose(variance[:2], error, rtol=0.25)


def test_signal_along_a_direction_is_the_share_of_its_variance_above_the_noise():
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.normal(size=(30, 2)))[0].T
    effect = random.normal(size=(2000, 2)) * [2.0, 0.0]
    noise = random.uniform(0.5, 1.5, 30)
    left = effect @ directions + np.sqrt(noise) * random.normal(size=(2000, 30))
    signal, variance = signal_of_spots(left, noise, directions)
    of_noise = directions[0] ** 2 @ noise
    share = 1 - of_noise / (4 + of_noise)
    expected = share * np.outer(left @ directions[0], directions[0])
    assert rmse(expected, signal) < 0.1
    true = effect @ directions
    assert ((signal - true) ** 2).sum(axis=1).mean() < 1.5 * share * of_noise
    assert variance.sum() < 2 * share * of_noise


def test_spots_without_counts_and_genes_without_expression_have_no_signal():
    noise = CountingNoise(np.zeros(6), 1e4).variance(np.zeros((6, 3)), np.zeros((6, 3)))
    signal, variance = signal_of_spots(np.zeros((6, 3)), noise, np.eye(1, 3))
    assert not noise.any()
    assert not signal.any()
    assert not variance.any()


# between spots


def test_a_place_in_the_centre_of_a_spot_gets_the_prediction_of_the_spot(sdata, model):
    sdata["table"].obs["some"] = np.arange(sdata["table"].n_obs) % 3 == 0
    spots = open_table(sdata)
    mask = sdata["table"].obs["some"].to_numpy()
    correction = Correction.read(spots, model, mask, device="cpu")
    section = spots.sections[0]
    at_spots = correction.at_spots(section)
    rest = np.flatnonzero(~mask)
    places = section.centers_um[rest], correction.embedding[rest], correction.predicted[rest]
    there = correction.at_places(section, *places)
    for name in ("values", "std", "lower", "upper"):
        np.testing.assert_allclose(getattr(there, name), getattr(at_spots, name)[rest], atol=1e-5)


def test_positions_between_measured_spots_are_corrected(sdata, model, tmp_path):
    # a field over the section that the model does not see
    section = open_table(sdata).sections[0]
    wave = np.sin(section.centers_um / 80).sum(axis=1)[:, None]
    layer = sdata["table"].layers["log1p"].toarray()
    sdata["table"].layers["log1p"] = np.maximum(layer + wave, 0).astype(np.float32)
    stp.tl.denoise(sdata, model)
    options = {"resolution_um": 20, "encoder": colour}
    stp.tl.superresolve(sdata, model, match="denoised", key_added="fine", **options)
    stp.tl.superresolve(sdata, model, match=None, key_added="alone", **options)
    stp.tl.superresolve(sdata, model, match="table", key_added="shifted", **options)
    fine = sdata["fine"]
    places = open_table(sdata, "fine").sections[0]
    truth = planted_at(sdata["table"], 2, places.centers_um / section.mpp)[:, :12]
    truth = truth + np.sin(places.centers_um / 80).sum(axis=1)[:, None]
    errors = {name: rmse(truth, sdata[name].X) for name in ("fine", "alone", "shifted")}
    assert errors["fine"] < 0.8 * min(errors["alone"], errors["shifted"])
    assert fine.X.dtype == fine.layers["upper"].dtype == np.float32
    assert (fine.layers["lower"] <= fine.X).all()
    assert (fine.layers["upper"] >= fine.X).all()
    assert layer_names(sdata["alone"]) == layer_names(sdata["shifted"]) == []
    sdata.write(tmp_path / "fine.zarr")
    np.testing.assert_array_equal(sd.read_zarr(tmp_path / "fine.zarr")["fine"].X, fine.X)


# provenance


def test_denoised_expression_is_not_scored(sdata, model):
    stp.tl.denoise(sdata, model)
    assert sdata["denoised"].obs["measured"].all()
    for tables in ("denoised", ["predicted", "denoised"]):
        with pytest.raises(ValueError, match=r"'(denoised|predicted)'.* none is left to score"):
            stp.tl.evaluate(sdata, tables)


def test_predictions_are_not_taken_for_measured_expression(sdata, model):
    stp.tl.denoise(sdata, model)
    denoised = sdata["denoised"]
    denoised.obsm.update(sdata["table"].obsm)
    denoised.layers["log1p"] = denoised.X
    denoised.uns["stpredict"] |= sdata["table"].uns["stpredict"]
    read = {"table_name": "denoised"}
    calls = [
        lambda: stp.tl.evaluate(sdata, "predicted", **read),
        lambda: stp.tl.fit_ridge(sdata, embedding=embedding(sdata), context="spot", **read),
        lambda: stp.tl.fit_ridge(
            sdata, embedding=embedding(sdata), context="spot", layer=None, **read
        ),
        lambda: stp.tl.denoise(sdata, model, key_added="again", **read),
    ]
    denoised.var["selected"] = True
    for call in calls:
        with pytest.raises(ValueError, match=r"tables\['denoised'\] holds predictions"):
            call()
    assert "again" not in sdata.tables


def test_the_map_of_denoised_expression_has_no_score(sdata, model):
    stp.tl.denoise(sdata, model)
    axes = stp.pl.prediction(sdata, model.genes[0], key="denoised")
    titles = [ax.get_title() for ax in axes.ravel()]
    assert any("predicted" in title for title in titles)
    assert not any("PCC" in title for title in titles)


# bad input


def test_sections_with_few_spots_are_refused(sdata, model):
    spots = open_table(sdata)
    few = spots.subset(np.arange(4)).sdata
    with pytest.raises(ValueError, match="'S3' has 4 spots, but at least 5"):
        stp.tl.denoise(few, model)
    assert "denoised" not in few.tables


def test_a_layer_with_nan_is_refused(sdata, model):
    layer = sdata["table"].layers["log1p"].toarray()
    layer[0, 0] = np.nan
    sdata["table"].layers["log1p"] = layer
    with pytest.raises(ValueError, match="NaN or infinite"):
        stp.tl.denoise(sdata, model)
    assert "denoised" not in sdata.tables
