"""Models behind LazySlide's protocol predict what `tl.predict` predicts from the same features."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from lazyslide_models.base import FeaturePredictionModelProtocol

import stpredict as stp
from stpredict._sdata._spot_table import open_table

MPP = 0.5


def mean_colour(tiles):
    return tiles.mean((-2, -1))


@pytest.fixture(scope="module", autouse=True)
def _silent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        yield


@pytest.fixture(scope="module")
def training():
    sdata = stp.datasets.phantom(2, size_px=800, mpp=MPP, pitch_um=40, n_morphology=2, n_null=1)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, mean_colour, key_added="X_colour", tile_um=40, n_subtiles=2)
    stp.pp.neighbors(sdata)
    return sdata


GENES = ["morphology_001", "null_001"]
SMALL = stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1)
SHORT = stp.tl.Schedule(max_epochs=2)


def fit_deepspot(sdata, context="spot_neighbors"):
    return stp.tl.fit_deepspot(
        sdata, embedding="X_colour", context=context, genes=GENES, network=SMALL, schedule=SHORT
    )


def fit_ridge(sdata, context="spot", embedding="X_colour"):
    return stp.tl.fit_ridge(sdata, embedding=embedding, context=context, genes=GENES, alpha=1.0)


def tiles_of(sdata):
    """Features of the first section, and upper left corners of its tiles in pixels."""
    section = open_table(sdata).sections[0]
    return sdata["table"].obsm["X_colour"][section.rows], section.centers - 20 / MPP


def by_table(sdata, model):
    stp.pp.prepare(sdata, model, encoder=mean_colour)
    stp.tl.predict(sdata, model)
    return np.asarray(sdata["predicted"].X)


def new_section(**options):
    return stp.datasets.phantom(size_px=800, mpp=MPP, seed=1, n_morphology=2, n_null=1, **options)


def as_matrix(predicted):
    assert list(predicted) == GENES
    return np.column_stack(list(predicted.values()))


def test_a_model_of_single_tiles_predicts_each_tile_alone(training):
    model = fit_ridge(training)
    predictor = model.as_feature_predictor()
    assert isinstance(predictor, FeaturePredictionModelProtocol)
    assert not predictor.needs_coords
    assert not predictor.whole_slide
    assert predictor.name == "stpredict_ridge"
    assert predictor.features_model_name == "colour"
    new = new_section(pitch_um=40)
    expected = by_table(new, model)
    features, _ = tiles_of(new)
    np.testing.assert_allclose(as_matrix(predictor.predict(features)), expected, atol=1e-6)
    batch = predictor.predict(sp.csr_matrix(features[5:9]))
    np.testing.assert_allclose(as_matrix(batch), expected[5:9], atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "pitch_um"),
    [({}, 40), ({"n_rings": 2}, 40), ({}, 20), ({"n_neighbors": 5}, 40), ({"radius_um": 70.0}, 40)],
    ids=["rings", "two rings", "finer tiles", "nearest", "radius"],
)
def test_neighbours_are_those_of_the_recipe(training, rule, pitch_um):
    sdata = stp.pp.neighbors(training, **rule, copy=True)
    model = fit_deepspot(sdata)
    predictor = model.as_feature_predictor(mpp=MPP)
    assert predictor.needs_coords
    assert predictor.whole_slide
    new = new_section(pitch_um=pitch_um)
    expected = by_table(new, model)
    features, corners = tiles_of(new)
    predicted = as_matrix(predictor.predict(features, corners))
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    # the neighbours matter
    shuffled = np.random.default_rng(0).permutation(corners)
    assert np.abs(as_matrix(predictor.predict(features, shuffled)) - expected).max() > 1e-3


@pytest.mark.parametrize("meta", ["mean", "rank_mean"])
def test_a_stack_on_one_embedding_is_served(training, meta):
    model = stp.tl.fit_stacking(training, {"near": fit_deepspot, "alone": fit_ridge}, meta=meta)
    predictor = model.as_feature_predictor(mpp=MPP)
    assert predictor.whole_slide
    new = new_section(pitch_um=40)
    expected = by_table(new, model)
    predicted = predictor.predict(*tiles_of(new))
    np.testing.assert_allclose(as_matrix(predicted), expected, atol=1e-6)


def test_the_device_and_mixed_precision_of_lazyslide_do_not_change_predictions(training):
    import torch

    predictor = fit_ridge(training).as_feature_predictor()
    features, _ = tiles_of(training)
    expected = as_matrix(predictor.predict(features))
    assert predictor.to(torch.device("cpu")) is predictor
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        np.testing.assert_array_equal(as_matrix(predictor.predict(features)), expected)


def test_neighbours_need_the_scale_of_the_slide(training):
    model = fit_deepspot(training)
    with pytest.raises(ValueError, match="in µm: give the µm per pixel of the slide, mpp="):
        model.as_feature_predictor()
    with pytest.raises(ValueError, match="mpp must be a number above 0"):
        model.as_feature_predictor(mpp=0)
    features, corners = tiles_of(training)
    predictor = model.as_feature_predictor(mpp=MPP)
    with pytest.raises(ValueError, match="give the positions of the tiles, coords="):
        predictor.predict(features)
    with pytest.raises(ValueError, match=r"coords have the shape \(3, 2\), expected"):
        predictor.predict(features, corners[:3])
    with pytest.raises(ValueError, match="values that are NaN or infinite"):
        predictor.predict(features, np.where(corners == corners.max(), np.nan, corners))


def test_tiles_too_far_apart_for_the_neighbours_are_refused(training):
    features, corners = tiles_of(training)
    predictor = fit_deepspot(training).as_feature_predictor(mpp=3 * MPP)
    with pytest.raises(ValueError, match=r"120 µm apart\) has no neighbours like those"):
        predictor.predict(features, corners)


def test_features_of_another_width_and_with_nan_are_refused(training):
    predictor = fit_ridge(training).as_feature_predictor()
    with pytest.raises(ValueError, match=r"\(4, 5\), the model was trained on \(n, 3\).*'colour'"):
        predictor.predict(np.ones((4, 5)))
    with pytest.raises(ValueError, match="features has 1 values that are NaN or infinite"):
        predictor.predict(np.array([[0.1, np.nan, 0.2]]))


def test_models_that_need_more_than_one_matrix_are_refused(training):
    with pytest.raises(
        ValueError, match=r"deepspot model reads sub-tiles, not only features: use stp\.pp\.prepare"
    ):
        fit_deepspot(training, "spot_subspot").as_feature_predictor(mpp=MPP)
    sdata = stp.pp.embed(
        training, mean_colour, key_added="X_wide", tile_um=80, n_subtiles=1, copy=True
    )
    bases = {"narrow": fit_ridge, "wide": partial(fit_ridge, embedding="X_wide")}
    stack = stp.tl.fit_stacking(sdata, bases)
    with pytest.raises(ValueError, match=r"several embeddings \(X_colour, X_wide\)"):
        stack.as_feature_predictor()
    schedule = stp.tl.Schedule(max_epochs=1, batch_size=64)
    pixels = stp.tl.fit_cnn(training, genes=GENES, tile_um=40, schedule=schedule)
    with pytest.raises(ValueError, match="cnn model reads the pixels of tiles"):
        pixels.as_feature_predictor()


def test_a_published_model_without_a_rule_for_neighbours_is_refused(training):
    model = fit_deepspot(training)
    step = type(model.recipe.neighbors)()
    published = replace(model, recipe=replace(model.recipe, neighbors=step))
    with pytest.raises(ValueError, match="does not report the rule of its neighbours"):
        published.as_feature_predictor(mpp=MPP)
