"""Smoothed, imputed and denoised layers are detected and refused as test layers; others are not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.stats import rankdata

import stpredict as stp
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.tl._audit._noise import nearest, noise_kept, sub_poisson_share, unpredicted


def phantom(**options):
    sdata = stp.datasets.phantom(1, **{"counts_per_spot": 2000.0, "seed": 1, **options})
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    return sdata


def most_expressed(sdata, n):
    """The same sections with few genes, to save time."""
    sdata = copy_of(sdata)
    stp.pp.filter_spots(sdata)
    table = sdata["table"]
    genes = np.argsort(-np.asarray(table.X.sum(axis=0)).ravel())[:n]
    sdata.tables["table"] = table[:, np.sort(genes)].copy()
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture(scope="module", params=["phantom", "her2st"])
def sections(request):
    """A phantom, or four sections of HER2ST."""
    if request.param == "phantom":
        return phantom()
    return most_expressed(request.getfixturevalue("her2st_sections"), 400)


@pytest.fixture(scope="module")
def phantom_section():
    return phantom()


@pytest.fixture
def sdata(phantom_section):
    return copy_of(phantom_section)


def dense(values):
    return values.toarray() if sp.issparse(values) else np.asarray(values)


def principal(values, n):
    left, sizes, right = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    return left[:, :n] * sizes[:n], right[:n]


def denoised(values, n=8):
    scores, axes = principal(values, n)
    return scores @ axes + values.mean(axis=0)


def imputed(values, log1p, n_neighbors=10):
    scores, _ = principal(log1p, 20)
    return values[cKDTree(scores).query(scores, k=n_neighbors + 1)[1]].mean(axis=1)


def smoothed(values, positions):
    return (values + values[nearest(positions)].sum(axis=1)) / 7


def by_section(sdata, change, *layers):
    """Change the rows of each section on its own."""
    result = np.empty(layers[0].shape)
    for section in open_table(sdata).sections:
        parts = [layer[section.rows] for layer in layers]
        result[section.rows] = change(section, *parts)
    return result


def changed_layers(sdata):
    table = sdata["table"]
    log1p, counts = dense(table.layers["log1p"]), dense(table.X).astype(np.float64)

    def changed(change, values):
        return by_section(sdata, change, values, log1p)

    def smooth(section, values, _):
        return smoothed(values, section.centers_um)

    def impute(_, values, log1p):
        return imputed(values, log1p)

    def reconstruct(_, values, __):
        return denoised(values)

    return {
        "smoothed log1p": changed(smooth, log1p),
        "imputed log1p": changed(impute, log1p),
        "denoised log1p": changed(reconstruct, log1p),
        "smoothed counts": changed(smooth, counts),
        "imputed counts": changed(impute, counts),
        "denoised counts": changed(reconstruct, counts).clip(0),
        "rounded": np.rint(changed(smooth, counts)),
        "tl.denoise": of_tl_denoise(sdata),
    }


def of_tl_denoise(sdata):
    """All genes of tl.denoise, by a model of the position."""
    sdata = copy_of(sdata)
    table = sdata["table"]
    x, y = (open_table(sdata).positions_um / 1000).T
    table.obsm["place"] = np.stack([x, y, x * y, x**2, y**2], axis=1).astype(np.float32)
    stp.pp.register_embedding(sdata, "place", encoder="place", tile_um=100.0)
    options = {"genes": table.var_names.tolist(), "alpha": 1.0, "context": "spot"}
    stp.tl.denoise(sdata, stp.tl.fit_ridge(sdata, embedding="place", **options))
    return np.asarray(sdata["denoised"].X)


def raw_layers(sdata):
    table = sdata["table"]
    log1p, counts = dense(table.layers["log1p"]), dense(table.X).astype(np.float64)
    library = counts.sum(axis=1, keepdims=True)
    expected = library * counts.sum(axis=0) / counts.sum()
    return {
        "log1p": log1p,
        "counts": counts.copy(),
        "per million": counts / library * 1e6,
        "square root": np.sqrt(counts),
        "ranks": np.apply_along_axis(rankdata, 1, counts),
        "residuals": (counts - expected) / np.sqrt(expected + expected**2 / 100 + 1e-9),
        "scaled": (log1p - log1p.mean(axis=0)) / (log1p.std(axis=0) + 1e-9),
    }


def verdicts(sdata, layers):
    """Verdicts of all sections."""
    table = sdata["table"]
    result = {}
    for name, values in layers.items():
        table.layers[name] = values.astype(np.float32)
        result[name] = " ".join(sorted(set(stp.tl.audit_layer(sdata, name)["verdict"])))
        del table.layers[name]
    return result


@pytest.fixture(scope="module")
def changes(sections):
    return changed_layers(sections)


def test_smoothed_imputed_and_denoised_layers_are_detected(sections, changes):
    detected = verdicts(copy_of(sections), changes)
    assert detected == dict.fromkeys(changes, "smoothed")


def test_raw_layers_are_not_flagged(sections):
    raw = verdicts(copy_of(sections), raw_layers(sections))
    assert raw == dict.fromkeys(raw, "measured")
    assert set(stp.tl.audit_layer(sections, None)["verdict"]) == {"measured"}


@pytest.mark.parametrize("change", ["smoothed counts", "imputed counts", "denoised counts"])
def test_counts_that_replace_the_measured_ones_are_detected_by_their_variance(
    sections, changes, change
):
    sdata = copy_of(sections)
    sdata["table"].X = np.rint(changes[change]).astype(np.float32)
    stp.pp.normalize(sdata)
    for layer in (None, "log1p"):  # also what is computed from them
        evidence = stp.tl.audit_layer(sdata, layer)
        assert set(evidence["verdict"]) == {"smoothed"}
        assert (evidence["sub_poisson"] > 0.05).all()


@pytest.mark.parametrize("by", ["space", "expression"])
def test_recorded_smoothing_is_detected(sdata, by):
    stp.pp.smooth(sdata, by=by)
    stp.pp.rank_expression(sdata, layer="smoothed")
    for layer in ("smoothed", "ranks"):
        row = stp.tl.audit_layer(sdata, layer).iloc[0]
        assert row["recorded"]
        assert row["verdict"] == "smoothed"
    assert not stp.tl.audit_layer(sdata)["recorded"].any()


def test_a_layer_without_counts_is_not_tested(sdata):
    table = sdata["table"]
    table.layers["other"] = table.layers["log1p"].copy()
    table.X = dense(table.X) + 0.5
    row = stp.tl.audit_layer(sdata, "other").iloc[0]
    assert row["verdict"] == "untested"
    assert np.isnan([row["noise_kept"], row["sub_poisson"]]).all()
    table.layers["counts"] = dense(table.X) - 0.5
    assert stp.tl.audit_layer(sdata, "other")["verdict"].item() == "measured"
    assert stp.tl.audit_layer(sdata, None)["verdict"].item() == "measured"


def test_few_spots_are_not_tested(sdata):
    few = open_table(sdata).subset(np.arange(19)).sdata
    assert stp.tl.audit_layer(few)["verdict"].item() == "untested"


def test_sections_are_judged_one_by_one():
    sdata = stp.datasets.phantom(2, counts_per_spot=2000.0, size_px=1000)
    stp.pp.normalize(sdata)
    values = dense(sdata["table"].layers["log1p"]).copy()
    rows = open_table(sdata).section_rows["S2"]
    values[rows] = denoised(values[rows], 3)
    sdata["table"].layers["mixed"] = values
    evidence = stp.tl.audit_layer(sdata, "mixed").set_index("section")
    assert evidence["verdict"].to_dict() == {"S1": "measured", "S2": "smoothed"}


def test_poisson_counts_are_at_the_limit_and_halved_noise_is_below():
    random = np.random.default_rng(0)
    positions = random.uniform(0, 1, (400, 2))
    rate = random.gamma(5, 2, 60) * np.exp(0.5 * np.sin(3 * positions[:, :1]))
    counts = random.poisson(rate).astype(float)
    neighbors = nearest(positions)
    assert sub_poisson_share(counts, neighbors) <= 0.05
    mean_of_four = random.poisson(rate, (4, *rate.shape)).mean(axis=0)
    assert sub_poisson_share(mean_of_four, neighbors) > 0.9
    kept = noise_kept(np.sqrt(counts), counts, counts.sum(axis=1), neighbors)
    assert kept == pytest.approx(1, abs=0.1)
    assert noise_kept(rate, counts, counts.sum(axis=1), neighbors) < 0.5


def test_unpredicted_variance_is_that_of_the_part_without_pattern():
    random = np.random.default_rng(0)
    pattern, noise = random.normal(size=(600, 1)), random.normal(size=(600, 40))
    values = pattern + noise  # half of the variance is common to all genes
    rest = unpredicted(values, random.normal(size=(600, 40)), np.zeros(600))
    # the common pattern is also the mean over genes, which is removed as a nuisance
    np.testing.assert_allclose(rest.mean(), 1, atol=0.1)
    around = noise + 0.5 * random.normal(size=(600, 40))  # neighbours that reveal the noise
    rest = unpredicted(values, around, np.zeros(600))
    np.testing.assert_allclose(rest.mean(), 0.2, atol=0.05)


@pytest.fixture(scope="module")
def predicted_section():
    sdata = phantom()
    sdata["table"].layers["denoised"] = denoised(dense(sdata["table"].layers["log1p"]))
    stp.pp.embed(sdata, tile_um=100)
    genes = list(sdata["table"].var_names[:5])
    options = {"genes": genes, "alpha": 1.0, "context": "spot"}
    stp.tl.predict(sdata, stp.tl.fit_ridge(sdata, **options))
    return sdata


def test_a_smoothed_test_layer_is_refused_unless_asked_for(predicted_section):
    sdata = copy_of(predicted_section)
    with pytest.raises(ValueError, match=r"layers\['denoised'\] is smoothed.*'?S1'?: it has .* %?"):
        stp.tl.evaluate(sdata, layer="denoised")
    scores = stp.tl.evaluate(sdata, layer="denoised", allow_smoothed=True)
    assert "SMOOTHED" in scores.protocol.notes[0]
    assert not any("SMOOTHED" in note for note in stp.tl.evaluate(sdata).protocol.notes)


def test_scores_of_a_model_of_smoothed_expression_name_the_measured_layer(sdata):
    stp.pp.smooth(sdata)
    stp.pp.embed(sdata, tile_um=100)
    genes = list(sdata["table"].var_names[:5])
    model = stp.tl.fit_ridge(sdata, genes=genes, alpha=1.0, context="spot", layer="smoothed")
    stp.tl.predict(sdata, model)
    with pytest.raises(ValueError, match=r"stp\.pp\.smooth made it.*layer="):
        stp.tl.evaluate(sdata)
    assert stp.tl.evaluate(sdata, layer="log1p").protocol.layer == "log1p"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [({"layer": "absent"}, KeyError, "absent"), ({"table_name": "absent"}, KeyError, "absent")],
)
def test_bad_input_is_refused(sdata, options, error, message):
    with pytest.raises(error, match=message):
        stp.tl.audit_layer(sdata, **options)
