"""Features standardised within each section: shifts and scales of a section do not matter."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

import stpredict as stp
from helpers import prepared_phantom
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.targets import Standard

GENES = ["morphology_001", "morphology_002", "morphology_003"]
SMALL = {"size_px": 800, "mpp": 0.5, "pitch_um": 40.0, "n_morphology": 3, "n_null": 2}
SHORT = stp.tl.Schedule(max_epochs=2)
NETWORK = stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=2, n_rho=2, n_networks=1)
FULL = "spot_subspot_neighbors"


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1)), tiles.amax((-2, -1))], dim=1)


def prepared(n_sections=2, **options):
    design = {**SMALL, **options}
    return prepared_phantom(
        n_sections, design, select={"genes": GENES}, encoder=colour, n_subtiles=2
    )


@pytest.fixture(scope="module")
def sections():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return open_table(prepared(4))  # with the same planted genes


@pytest.fixture(scope="module")
def train(sections):
    return sections.subset(np.flatnonzero(sections.section_of_row != "S4")).sdata


@pytest.fixture
def new(sections):
    return sections.subset(sections.section_rows["S4"]).sdata


ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", alpha=1.0)
FITS = {
    "ridge": functools.partial(ridge, context=FULL),
    "trees": functools.partial(stp.tl.fit_trees, embedding="X_colour", n_trees=5),
    "deepspot": functools.partial(
        stp.tl.fit_deepspot, embedding="X_colour", context=FULL, network=NETWORK, schedule=SHORT
    ),
    "deepcell": functools.partial(
        stp.tl.fit_deepcell,
        embedding="X_colour",
        network=stp.tl.DeepCellNetwork(n_hidden=8, n_phi=2, n_rho=2),
        schedule=SHORT,
    ),
}


def predicted(sdata, model):
    stp.tl.predict(sdata, model)
    return np.asarray(sdata.tables["predicted"].X)


def change_features(sdata, change):
    obsm = sdata.tables["table"].obsm
    for slot in ("X_colour", "X_colour_subtiles"):
        obsm[slot] = change(obsm[slot]).astype(np.float32)


def restain(sdata):
    """Shift and scale every feature by amounts of its own."""
    generator = np.random.default_rng(0)
    scale, shift = generator.uniform(0.5, 2, 9), generator.normal(size=9)
    change_features(sdata, lambda values: values * scale + shift)


@pytest.mark.parametrize("name", FITS)
def test_a_section_whose_features_are_shifted_and_scaled_is_predicted_as_before(name, train, new):
    within = FITS[name](train, standardize="section")
    over_training = FITS[name](train, standardize="training")
    expected = {model: predicted(new, model) for model in (within, over_training)}
    restain(new)
    tolerance = 1e-3 * expected[within].std()
    if name == "trees":  # rounding may move a spot across a threshold
        difference = np.abs(predicted(new, within) - expected[within])
        assert np.median(difference) < tolerance
    else:
        np.testing.assert_allclose(predicted(new, within), expected[within], atol=tolerance)
    change = np.abs(predicted(new, over_training) - expected[over_training])
    assert change.mean() > 0.5 * expected[over_training].std()


def test_errors_in_a_restained_section_stay_with_section_and_grow_with_training(train, new):
    measured = new.tables["table"][:, GENES].layers["log1p"].toarray()
    restain(new)

    def rmse(values):
        return np.sqrt(np.square(values - measured).mean())

    null = rmse(train.tables["table"][:, GENES].layers["log1p"].toarray().mean(axis=0))
    assert rmse(predicted(new, FITS["ridge"](train, standardize="section"))) < 0.95 * null
    assert rmse(predicted(new, FITS["ridge"](train))) > 1.2 * null


def naive(sdata):
    """Standardise each section with numpy; sub-tiles with the statistics of the tiles."""
    changed = sdata.tables["table"].copy()
    sections = changed.obs["region"].astype(str).to_numpy()
    center = changed.obsm["X_colour"].astype(np.float64)
    parts = changed.obsm["X_colour_subtiles"].astype(np.float64)
    for section in set(sections):
        rows = sections == section
        mean, deviation = center[rows].mean(axis=0), center[rows].std(axis=0)
        center[rows] = (center[rows] - mean) / deviation
        parts[rows] = (parts[rows] - mean) / deviation
    return center.astype(np.float32), parts.astype(np.float32)


@pytest.mark.parametrize("name", ["ridge", "deepspot"])
def test_the_option_equals_features_that_were_standardised_before(name, train, new):
    expected = predicted(new, FITS[name](train, standardize="section"))
    sections = copy_of(train)
    for sdata in (sections, new):
        obsm = sdata.tables["table"].obsm
        obsm["X_colour"], obsm["X_colour_subtiles"] = naive(sdata)
    values = predicted(new, FITS[name](sections))
    np.testing.assert_allclose(values, expected, atol=1e-3 * expected.std())


def test_sections_of_one_table_are_standardised_apart(train):
    model, spots = FITS["ridge"](train, standardize="section"), open_table(copy_of(train))
    together = predicted(spots.sdata, model)
    for rows in spots.section_rows.values():
        alone = predicted(spots.subset(rows).sdata, model)
        np.testing.assert_allclose(together[rows], alone, atol=1e-6)


def test_a_saved_model_standardises_as_before_and_its_card_says_so(train, new, tmp_path):
    model = FITS["ridge"](train, standardize="section")
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    assert loaded.recipe == model.recipe
    assert loaded.recipe.standardize == "section"
    np.testing.assert_array_equal(predicted(new, loaded), predicted(new, model))
    text = "features: standardised within each section"
    assert text in (tmp_path / "model" / "README.md").read_text()
    assert text in repr(model)
    assert text not in repr(FITS["ridge"](train))


def test_an_array_is_predicted_after_standardising_it_as_documented(train, new):
    model = ridge(train, context="spot", standardize="section")
    features = new.tables["table"].obsm["X_colour"]
    scaled = Standard.fit(features).transform(features)
    np.testing.assert_allclose(model.predict_array(scaled), predicted(new, model), atol=1e-6)


def test_lazyslide_predicts_all_tiles_of_a_slide_as_one_section(train, new):
    predictor = ridge(train, context="spot", standardize="section").as_feature_predictor()
    assert predictor.whole_slide
    values = predictor.predict(new.tables["table"].obsm["X_colour"])
    expected = predicted(new, predictor.fitted)
    np.testing.assert_allclose(np.column_stack(list(values.values())), expected, atol=1e-6)
    with pytest.raises(ValueError, match="'slide' has 1 spots with equal features"):
        predictor.predict(new.tables["table"].obsm["X_colour"][:1])


def test_a_constant_feature_is_0_in_its_section(train, new):
    model = FITS["ridge"](train, standardize="section")

    def without_last(values):
        values = values.copy()
        values[..., -1] = 7.0
        return values

    change_features(new, without_last)
    values = predicted(new, model)
    assert np.isfinite(values).all()
    scaled = Standard.fit(new.tables["table"].obsm["X_colour"])
    assert scaled.constant.tolist() == [False] * 8 + [True]


def test_a_section_with_few_spots_is_predicted_with_a_warning(train, new):
    model = ridge(train, context="spot", standardize="section")
    few = open_table(new).subset(np.arange(10)).sdata
    with pytest.warns(UserWarning, match="section 'S4' has 10 spots; features standardised over"):
        assert np.isfinite(predicted(few, model)).all()


@pytest.mark.parametrize("rows", [[4], [4, 4]], ids=["one spot", "equal spots"])
def test_a_section_that_does_not_vary_is_refused_and_nothing_is_written(rows, train, new):
    model = ridge(train, context="spot", standardize="section")
    spots = open_table(new).subset(np.arange(len(rows)))
    spots.table.obsm["X_colour"] = new.tables["table"].obsm["X_colour"][rows]
    before = set(spots.sdata.tables)
    message = f"section 'S4' has {len(rows)} spots with equal features.*standardize=.training"
    with pytest.raises(ValueError, match=message):
        stp.tl.predict(spots.sdata, model)
    assert set(spots.sdata.tables) == before
    with pytest.raises(ValueError, match=message):
        ridge(spots.sdata, context="spot", standardize="section")
    assert np.isfinite(predicted(spots.sdata, ridge(train, context="spot"))).all()


def test_an_unknown_value_is_refused(train):
    with pytest.raises(ValueError, match=r"standardize.*'slide'"):
        ridge(train, standardize="slide")


def test_cross_validation_calibration_and_familiarity_standardise_within_sections(train, new):
    fit = functools.partial(ridge, context="spot", standardize="section")
    sections = copy_of(train)
    stp.tl.cross_validate(sections, {"within": fit})
    with pytest.raises(ValueError, match="standardize"):
        stp.tl.calibrate(sections, ridge(sections, context="spot"), method="within")
    model = stp.tl.calibrate(sections, fit(sections))
    stp.tl.predict(new, model)
    before = new.tables["predicted"].obs["familiarity"].to_numpy()
    restain(new)
    stp.tl.predict(new, model)
    after = new.tables["predicted"].obs["familiarity"].to_numpy()
    np.testing.assert_allclose(after, before, atol=0.02)


def test_a_finetuned_model_still_uses_features_of_the_section(train, new):
    model = FITS["deepspot"](train, standardize="section")
    restained = copy_of(new)
    restain(restained)
    tuned, other = (
        stp.tl.finetune(sdata, model, train="head", schedule=SHORT) for sdata in (new, restained)
    )
    assert tuned.recipe.standardize == "section"
    values = predicted(new, tuned)
    np.testing.assert_allclose(predicted(new, other), values, atol=0.01 * values.std())


def test_attributions_are_those_of_features_of_the_section(train, new):
    model = FITS["ridge"](train, standardize="section")
    attributed = []
    for _ in range(2):
        stp.tl.predict(new, model)
        stp.tl.attribute(new, model, GENES[0], n_steps=8, key_added="share")
        table = new.tables["predicted"]
        attributed.append(table.obsm["share"].to_numpy())
        baseline = table.uns["stpredict"]["attribute"]["share"]["baseline"]
        assert baseline.endswith("standardised within each section")
        restain(new)
    np.testing.assert_allclose(*attributed, atol=1e-3 * attributed[0].std())


def test_a_stack_may_combine_both_kinds_of_bases(train, new):
    bases = {name: functools.partial(ridge, standardize=name) for name in ("training", "section")}
    stack = stp.tl.fit_stacking(train, bases)
    values = [predicted(new, base) for base in stack.bases.values()]
    np.testing.assert_allclose(predicted(new, stack), np.mean(values, axis=0), atol=1e-5)


def restained_phantom(variation):
    """The same three sections and genes in other stains."""
    options = {**SMALL, "n_morphology": 6, "n_neighborhood": 0}
    sdata = stp.datasets.phantom(3, **options, stain_variation=variation, seed=1)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, tile_um=40)
    return open_table(sdata)


def test_less_is_lost_in_a_section_of_another_stain_than_with_statistics_of_training():
    raw, restained = restained_phantom(0.0), restained_phantom(2.0)
    genes = [f"morphology_{i:03d}" for i in range(1, 7)]
    train = raw.subset(np.flatnonzero(raw.section_of_row != "S3")).sdata
    lost = {}
    for name in ("training", "section"):
        model = stp.tl.fit_ridge(train, genes=genes, context="spot", standardize=name)
        pcc = []
        for spots in (raw, restained):
            section = spots.subset(spots.section_rows["S3"]).sdata
            measured = section.tables["table"][:, genes].layers["log1p"]
            pcc.append(stp.metrics.pcc(measured, predicted(section, model)).mean())
        assert pcc[0] > 0.6  # the planted genes are predicted in the stain of training
        lost[name] = pcc[0] - pcc[1]
    assert lost["training"] > 0.1
    assert lost["section"] < 0.5 * lost["training"]
