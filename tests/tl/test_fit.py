"""Fitting: planted genes are recovered, held-out rows are not used, bad input is refused."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict._sdata._steps import NeighborsStep, NormalizeStep
from stpredict.models._records import SampleWeight
from stpredict.nn import losses
from stpredict.tl._fitting._split import hold_out_groups

FINE = {"mpp": 0.5, "pitch_um": 40.0}
TINY = {
    "embedding": "X_colour",
    "context": "spot_subspot_neighbors",
    "network": stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=2, n_rho=2, n_networks=1),
    "schedule": stp.tl.Schedule(max_epochs=2),
}


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


def prepared(n_sections, **options):
    sdata = stp.datasets.phantom(
        n_sections,
        **{"size_px": 800, **FINE, "n_morphology": 3, "n_neighborhood": 3, "n_null": 2} | options,
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=6)
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=2)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture(scope="module")
def three_sections():
    sdata = prepared(3, n_patients=2)  # P1: S1 and S3, P2: S2
    return sdata


@pytest.fixture
def sdata(three_sections):
    return copy_of(three_sections)


@pytest.fixture
def one_section(three_sections):
    return copy_of(three_sections.subset(["S1", "S1_image"]))


# ---- recovery ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recovery():
    """PCC with the planted expectation on three held-out sections, by context and kind of gene."""
    sections = [f"S{i}" for i in range(1, 10)]
    sdata = stp.datasets.phantom(
        len(sections), size_px=1400, **FINE, n_morphology=6, n_neighborhood=6, n_null=8
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, list(sdata.tables["table"].var_names))
    stp.pp.embed(sdata, "texture", tile_um=40, n_subtiles=1)  # the tile that was measured in
    stp.pp.neighbors(sdata)

    def only(names):
        return sdata.subset([element for name in names for element in (name, f"{name}_image")])

    train, test = only(sections[:-3]), only(sections[-3:])
    pcc_by_kind = {}
    for context in ("spot", "spot_neighbors"):
        model = stp.tl.fit_deepspot(
            train,
            context=context,
            network=stp.tl.DeepSpotNetwork(
                n_hidden=128, n_phi=3, n_rho=2, n_networks=1, dropout=0.1
            ),
            schedule=stp.tl.Schedule(learning_rate=2e-3, patience=5),
            device="cpu",
        )
        stp.tl.predict(test, model, device="cpu")
        predicted, table = test.tables["predicted"], test.tables["table"]
        region = table.obs["region"].astype(str).to_numpy()
        pcc = np.mean(
            [
                metrics.pcc(table.layers["expected"][region == name], predicted.X[region == name])
                for name in sections[-3:]
            ],
            axis=0,
        )
        kind = table.var["planted"].to_numpy()
        pcc_by_kind[context] = pd.Series(pcc).groupby(kind, observed=True)
    return pcc_by_kind


def test_genes_planted_on_morphology_are_recovered(recovery):
    for by_kind in recovery.values():
        assert by_kind.mean()["morphology"] >= 0.85


def test_genes_planted_on_the_neighborhood_are_recovered_with_it_only(recovery):
    with_neighbors = recovery["spot_neighbors"].mean()["neighborhood"]
    without = recovery["spot"].mean()["neighborhood"]
    assert with_neighbors >= 0.8
    assert without <= with_neighbors - 0.2


def test_null_genes_are_not_predicted(recovery):
    for by_kind in recovery.values():
        nulls = by_kind.get_group("null")
        assert abs(nulls.mean()) <= 0.05
        assert nulls.abs().mean() <= 0.1


# ---- the fitted model ----------------------------------------------------------------------


def test_a_model_records_its_training(sdata):
    model = stp.tl.fit_deepspot(sdata, **TINY, seed=4)
    table = sdata.tables["table"]
    assert list(model.genes) == table.var_names[table.var["selected"]].tolist()
    assert model.method == "deepspot"
    assert model.context == "spot_subspot_neighbors"
    assert model.units == "log(1 + counts per 10,000)"
    assert model.recipe.embedding == "X_colour"
    assert model.recipe.embed.tile_um == 40
    assert model.recipe.embed.n_subtiles == 2
    step = NeighborsStep(grid="hexagonal", n_rings=1, pitch_um=40.0, distance_um=40.0)
    assert model.recipe.neighbors == step
    assert model.recipe.layer == "log1p"
    assert model.recipe.layer_steps == (NormalizeStep(target_sum=1e4),)
    assert model.training.sections == ("S1", "S2", "S3")
    assert model.training.groups == ("P1", "P2")
    assert model.training.seed == 4
    assert model.training.n_spots + model.training.n_held_out == table.n_obs
    assert {"torch", "spatialdata"} <= model.training.versions.keys()
    assert model.hyperparameters.network == TINY["network"]
    assert model.hyperparameters.schedule == TINY["schedule"]
    assert model.hyperparameters.loss == "mse"
    assert (model.targets.mean > 0).all()
    assert not model.network.training


def test_a_model_of_any_context_is_saved_and_loaded(sdata, tmp_path):
    for context in ("spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"):
        model = stp.tl.fit_deepspot(sdata, **TINY | {"context": context})
        assert model.uses_subtiles == ("subspot" in context)
        assert model.uses_neighbors == ("neighbors" in context)
        model.save(tmp_path / context)
        loaded = stp.models.load(tmp_path / context)
        first, second = (
            stp.tl.predict(sdata, m, copy=True).tables["predicted"].X for m in (model, loaded)
        )
        np.testing.assert_array_equal(first, second)


def test_the_same_seed_gives_the_same_predictions(sdata):
    first, second, other = (
        stp.tl.predict(sdata, stp.tl.fit_deepspot(sdata, **TINY, seed=seed), copy=True)
        .tables["predicted"]
        .X
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


class RecordingLoss(losses.Loss):
    """Squared error that records the section of each target."""

    within_sections = True
    batches: ClassVar[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def forward(self, predicted, target, log_library=None, section=None):
        self.batches.append((target, section))
        return super().forward(predicted, target, log_library, section)

    def compute(self, predicted, target, log_library):
        return (predicted - target).square().mean()


@pytest.mark.parametrize("method", ["fit_deepspot", "finetune"])
def test_a_loss_within_sections_gets_the_section_of_each_spot(sdata, method, monkeypatch):
    monkeypatch.setattr(RecordingLoss, "batches", [])
    model = stp.tl.fit_deepspot(sdata, **TINY, loss=RecordingLoss())
    if method == "finetune":
        RecordingLoss.batches.clear()
        stp.tl.finetune(sdata, model, loss=RecordingLoss(), schedule=TINY["schedule"])
    spots = open_table(sdata, "table")
    table = sdata.tables["table"]
    targets = model.targets.transform(table[:, list(model.genes)].layers["log1p"])
    section_of = {
        values.tobytes(): name for values, name in zip(targets, spots.section_of_row, strict=True)
    }
    pairs = [
        (section_of[values.numpy().tobytes()], int(number))
        for batch, section in RecordingLoss.batches
        for values, number in zip(batch, section, strict=True)
    ]
    assert len(pairs) >= 2 * table.n_obs
    assert len(set(pairs)) == 3
    assert len({number for _, number in pairs}) == 3


def test_a_loss_of_pairs_of_spots_is_recorded_and_used_again(sdata, tmp_path):
    model = stp.tl.fit_deepspot(sdata, **TINY, loss="mse_pairwise_spots")
    assert model.hyperparameters.loss == "mse_pairwise_spots"
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    tuned = stp.tl.finetune(sdata, loaded, schedule=TINY["schedule"])
    assert tuned.hyperparameters.loss == "mse_pairwise_spots"


def test_fitting_changes_no_table(sdata):
    before = copy_of(sdata).tables["table"]
    stp.tl.fit_deepspot(sdata, **TINY)
    after = sdata.tables["table"]
    assert set(sdata.tables) == {"table"}
    pd.testing.assert_frame_equal(before.obs, after.obs)
    pd.testing.assert_frame_equal(before.var, after.var)
    assert repr(before.uns) == repr(after.uns)
    for slots in ("layers", "obsm", "obsp"):
        assert getattr(before, slots).keys() == getattr(after, slots).keys()
    for key in ("X_colour", "X_colour_subtiles"):
        np.testing.assert_array_equal(before.obsm[key], after.obsm[key])
    assert (before.layers["log1p"] != after.layers["log1p"]).nnz == 0


def test_genes_are_predicted_in_the_order_they_are_named(sdata):
    genes = ["null_001", "morphology_002"]
    model = stp.tl.fit_deepspot(sdata, **TINY, genes=genes)
    assert model.genes == tuple(genes)
    column = sdata.tables["table"][:, genes].layers["log1p"].toarray()
    np.testing.assert_allclose(model.targets.mean, column.mean(axis=0), atol=0.3)


def test_another_layer_is_predicted_in_its_own_units(sdata):
    table = sdata.tables["table"]
    table.layers["counts"] = table.X.copy()
    model = stp.tl.fit_deepspot(sdata, **TINY, layer="counts")
    assert model.units == "counts"
    assert model.recipe.layer == "counts"
    assert model.recipe.layer_steps == ()
    assert model.targets.mean.min() > 50


def test_a_constant_gene_is_reported_and_predicted_as_that_constant(sdata, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    table = sdata.tables["table"]
    values = table.layers["log1p"].toarray()
    values[:, 1] = 2.5
    table.layers["log1p"] = values
    genes = ["morphology_001", "morphology_002"]
    fits = {
        "deepspot": stp.tl.fit_deepspot(sdata, **TINY, genes=genes),
        "ridge": stp.tl.fit_ridge(sdata, embedding="X_colour", genes=genes),
    }
    printed = capsys.readouterr().out
    assert "1 of 2 genes are constant in training and predicted as that constant" in printed
    assert "morphology_002" in printed
    for method, model in fits.items():
        stp.tl.predict(sdata, model, key_added=method)
        predicted = sdata.tables[method]
        np.testing.assert_allclose(predicted.to_df()["morphology_002"], 2.5)
        assert predicted.var["constant"].tolist() == [False, True]
    assert (sdata.tables["deepspot"].to_df()["morphology_002"] == 2.5).all()


# ---- weights -------------------------------------------------------------------------------


def test_a_model_records_its_weights(sdata, tmp_path):
    plain = stp.tl.fit_deepspot(sdata, **TINY)
    assert plain.training.sample_weight is None
    stp.pp.balance(sdata, by=["region", "region_truth"])
    model = stp.tl.fit_deepspot(sdata, **TINY, sample_weight="sampling_weight")
    expected = SampleWeight("sampling_weight", ("region", "region_truth"))
    assert model.training.sample_weight == expected
    assert not model.history.equals(plain.history)
    # held-out rows and scaling do not depend on the weights
    assert model.training.held_out == plain.training.held_out
    assert model.training.n_spots == plain.training.n_spots
    np.testing.assert_array_equal(model.targets.mean, plain.targets.mean)
    np.testing.assert_array_equal(model.inputs.scale, plain.inputs.scale)
    model.save(tmp_path / "weighted")
    assert stp.models.load(tmp_path / "weighted").training == model.training
    card = (tmp_path / "weighted" / "README.md").read_text()
    assert "- spots drawn by: obs['sampling_weight']" in card


def test_custom_weights_are_used(sdata):
    sdata.tables["table"].obs["mine"] = np.arange(sdata.tables["table"].n_obs)
    first, second = (
        stp.tl.fit_deepspot(sdata, **TINY, sample_weight="mine", seed=2) for _ in range(2)
    )
    assert first.training.sample_weight == SampleWeight("mine")
    assert first.history.equals(second.history)


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        ("weight", KeyError, r"no column sample_weight='weight'; .*stp\.pp\.balance"),
        ("region", ValueError, r"obs\['region'\] holds category.*balance\(sdata, by='region'\)"),
        ("missing", ValueError, r"weights in obs\['missing'\] must be finite .* 2 values are NaN"),
        ("negative", ValueError, r"weights in obs\['negative'\] .* 1 are negative"),
        ("none", ValueError, r"weights in obs\['none'\] are 0 for every training spot"),
    ],
)
def test_bad_weights_are_refused(sdata, column, error, message):
    obs = sdata.tables["table"].obs
    obs["missing"] = [np.nan] * 2 + [1.0] * (len(obs) - 2)
    obs["negative"] = [-0.5] + [1.0] * (len(obs) - 1)
    obs["none"] = 0.0
    with pytest.raises(error, match=message):
        stp.tl.fit_deepspot(sdata, **TINY, sample_weight=column)


# ---- held-out rows ----------------------------------------------------------------------


def split_of(sdata, *, groups=None, seed=0):
    return hold_out_groups(open_table(sdata), groups=groups, seed=seed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("groups", "kind"), [(None, "patient"), ("region", "region")])
def test_a_whole_group_is_held_out(sdata, groups, kind, seed):
    split = split_of(sdata, groups=groups, seed=seed)
    labels = sdata.tables["table"].obs[kind].astype(str).to_numpy()
    assert sorted([*split.training, *split.folds[0].validation]) == list(range(len(labels)))
    assert len(set(labels[split.folds[0].validation])) == 1
    assert not set(labels[split.folds[0].validation]) & set(labels[split.training])
    assert split.held_out == f"{kind} {labels[split.folds[0].validation][0]}"


def test_sections_are_the_groups_without_patients(sdata):
    del sdata.tables["table"].obs["patient"]
    assert split_of(sdata).held_out.startswith("section S")


def test_sections_are_the_groups_of_a_single_patient(sdata):
    sdata.tables["table"].obs["patient"] = "P1"
    assert split_of(sdata).held_out.startswith("section S")


def test_another_seed_holds_out_another_group(sdata):
    assert len({split_of(sdata, groups="region", seed=seed).held_out for seed in range(8)}) > 1


def test_a_contiguous_block_of_a_single_section_is_held_out(one_section, capsys, monkeypatch):
    split = split_of(one_section)
    centers = open_table(one_section).positions_um
    longer = np.argmax(np.ptp(centers, axis=0))
    assert centers[split.folds[0].validation, longer].min() >= centers[split.training, longer].max()
    assert len(split.folds[0].validation) == round(0.2 * len(centers))
    assert len(set(split.groups)) == 5

    monkeypatch.setattr(stp.settings, "verbosity", 1)
    model = stp.tl.fit_deepspot(one_section, **TINY)
    assert "only one section: a contiguous block of section S1 held out" in capsys.readouterr().out
    assert model.training.held_out == "a contiguous block of section S1"


def test_several_networks_hold_out_the_groups_in_turn(sdata):
    labels = sdata.tables["table"].obs["patient"].astype(str).to_numpy()
    split = hold_out_groups(open_table(sdata), groups=None, seed=0, n_networks=4)
    held_out = [set(labels[fold.validation]) for fold in split.folds]
    n_patients = len(set(labels))
    assert all(len(names) == 1 for names in held_out)
    assert set.union(*held_out[:n_patients]) == set(labels)
    assert held_out[n_patients:] == held_out[: 4 - n_patients]
    for fold in split.folds:
        assert sorted([*fold.training, *fold.validation]) == list(range(len(labels)))
    assert split.training.tolist() == list(range(len(labels)))
    assert split.held_out in ("patient P1, P2 in turn", "patient P2, P1 in turn")


def test_several_networks_hold_out_blocks_of_a_single_section(one_section):
    split = hold_out_groups(open_table(one_section), groups=None, seed=0, n_networks=2)
    assert split.held_out == "2 contiguous blocks in turn of section S1"
    blocks = [set(fold.validation) for fold in split.folds]
    assert not blocks[0] & blocks[1]


def test_the_mean_of_several_networks_is_predicted(sdata, tmp_path):
    network = dataclasses.replace(TINY["network"], n_networks=3)
    model = stp.tl.fit_deepspot(sdata, **TINY | {"network": network})
    center, subtiles, neighbors = np.split(
        np.random.default_rng(0).normal(size=(5, 9, 6)), [1, 5], 1
    )
    center, inputs = center[:, 0], {"subtiles": subtiles, "neighbors": neighbors}
    predicted = model.predict_array(center, **inputs)
    each = [
        dataclasses.replace(model, network=one).predict_array(center, **inputs)
        for one in model.network
    ]
    assert len(each) == len(model.training.best_epochs) == 3
    np.testing.assert_allclose(predicted, np.mean(each, axis=0), atol=1e-5)
    assert np.std(each, axis=0).max() > 1e-3
    assert sorted(set(model.history["network"])) == [1, 2, 3]
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_array(center, **inputs), predicted)
    assert f"best epoch of each network {model.training.best_epochs[0]}, " in repr(loaded)


def test_scaling_is_fitted_on_training_rows_only(sdata):
    table = sdata.tables["table"]
    model = stp.tl.fit_deepspot(sdata, **TINY, standardize="training")
    patient = model.training.held_out.removeprefix("patient ")
    rows = (table.obs["patient"] != patient).to_numpy()
    genes = table.var_names.get_indexer(model.genes)
    measured = table.layers["log1p"].toarray()[rows][:, genes]
    np.testing.assert_allclose(model.targets.mean, measured.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.targets.standard.scale, measured.std(axis=0), rtol=1e-4)
    center = table.obsm["X_colour"][rows]
    np.testing.assert_allclose(model.inputs.mean, center.mean(axis=0), rtol=1e-5)
    subtiles = table.obsm["X_colour_subtiles"][rows]
    np.testing.assert_allclose(model.subtiles.mean, subtiles.mean(axis=(0, 1)), rtol=1e-5)


# ---- bad input -----------------------------------------------------------------------------


def test_too_few_spots_are_refused(one_section):
    table = one_section.tables["table"]
    one_section.tables["table"] = table[:12].copy()
    with pytest.raises(ValueError, match=r"too few spots to hold any out: 10 .* and 2 .* at least"):
        stp.tl.fit_deepspot(one_section, **TINY, standardize="training")


def test_a_group_too_small_to_be_held_out_is_refused(sdata):
    table = sdata.tables["table"]
    table.obs["batch"] = ["few"] * 3 + ["many"] * (table.n_obs - 3)
    for seed in range(3):  # whichever of them is held out
        with pytest.raises(ValueError, match="too few spots"):
            stp.tl.fit_deepspot(sdata, **TINY, groups="batch", seed=seed)


def test_a_missing_column_of_groups_is_refused(sdata):
    with pytest.raises(KeyError, match=r"no column groups='donor'; .*patient"):
        stp.tl.fit_deepspot(sdata, **TINY, groups="donor")


@pytest.mark.parametrize("groups", [None, "patient"])
def test_rows_without_a_group_are_refused(sdata, groups):
    obs = sdata.tables["table"].obs
    obs["patient"] = obs["patient"].where(obs["region"] != "S3")
    obs.iloc[0, obs.columns.get_loc("patient")] = "P2"
    n_missing = int(obs["patient"].isna().sum())
    with pytest.raises(ValueError, match=rf"{n_missing} rows have no \w+ in obs\['patient'\]"):
        stp.tl.fit_deepspot(sdata, **TINY, groups=groups)


def test_a_missing_embedding_is_refused(sdata):
    with pytest.raises(KeyError, match=r"X_uni.*embeddings: X_colour: run stp\.pp\.embed"):
        stp.tl.fit_deepspot(sdata, **TINY | {"embedding": "X_uni"})


def test_an_embedding_of_another_tool_is_registered_first(sdata):
    table = sdata.tables["table"]
    table.obsm["X_mine"] = table.obsm["X_colour"]
    options = TINY | {"embedding": "X_mine", "context": "spot"}
    message = r"obsm\['X_mine'\] is not registered .*register_embedding\(sdata, 'X_mine', encoder=…"
    with pytest.raises(KeyError, match=message):
        stp.tl.fit_deepspot(sdata, **options)
    # without embedding=, the slot of another tool is named, too
    message = r"no embedding 'X_texture'; .*embed first, or stp\.pp\.register_embedding for .*X_m"
    with pytest.raises(KeyError, match=message):
        stp.tl.fit_ridge(sdata, context="spot")
    stp.pp.register_embedding(sdata, "X_mine", encoder="my_model", tile_um=40)
    model = stp.tl.fit_deepspot(sdata, **options)
    assert model.recipe.embed.encoder == "my_model"
    assert not model.recipe.embed.is_complete
    stp.tl.predict(sdata, model)


@pytest.mark.parametrize("slot", ["X_colour", "X_colour_subtiles"])
def test_an_embedding_with_nan_is_refused(sdata, slot):
    sdata.tables["table"].obsm[slot][5, ..., 0] = np.nan
    with pytest.raises(ValueError, match=rf"obsm\['{slot}'\] has \d values that are NaN"):
        stp.tl.fit_deepspot(sdata, **TINY)


def test_a_context_with_subtiles_requires_them(sdata):
    del sdata.tables["table"].obsm["X_colour_subtiles"]
    with pytest.raises(KeyError, match=r"X_colour_subtiles.*n_subtiles=3.*spot_neighbors"):
        stp.tl.fit_deepspot(sdata, **TINY)
    stp.tl.fit_deepspot(sdata, **TINY | {"context": "spot_neighbors"})


def test_subtiles_that_are_not_registered_are_not_used(sdata):
    stp.pp.register_embedding(sdata, "X_colour", encoder="my_model", tile_um=40)
    assert "X_colour_subtiles" in sdata.tables["table"].obsm
    with pytest.raises(KeyError, match=r"obsm\['X_colour_subtiles'\] is not registered"):
        stp.tl.fit_deepspot(sdata, **TINY)


def test_a_context_with_neighbours_requires_a_graph(sdata):
    del sdata.tables["table"].obsp["spatial_connectivities"]
    with pytest.raises(KeyError, match=r"no neighbourhood graph.*stp\.pp\.neighbors"):
        stp.tl.fit_deepspot(sdata, **TINY)
    stp.tl.fit_deepspot(sdata, **TINY | {"context": "spot_subspot"})


def test_a_missing_layer_is_refused(sdata):
    del sdata.tables["table"].layers["log1p"]
    with pytest.raises(KeyError, match=r"no 'log1p'.*stp\.pp\.normalize"):
        stp.tl.fit_deepspot(sdata, **TINY)


def test_a_layer_with_nan_is_refused(sdata):
    sdata.tables["table"].layers["log1p"].data[0] = np.nan
    with pytest.raises(ValueError, match=r"layers\['log1p'\] has 1 values that are NaN"):
        stp.tl.fit_deepspot(sdata, **TINY)


def test_genes_have_to_be_selected(sdata):
    for change in ({"selected": False}, None):
        table = sdata.tables["table"]
        table.var = table.var.assign(**change) if change else table.var.drop(columns="selected")
        with pytest.raises(ValueError, match=r"no genes are selected: .*stp\.pp\.select_genes"):
            stp.tl.fit_deepspot(sdata, **TINY)


@pytest.mark.parametrize("kind", ["int64", "float64", "str", "object", "Int64", "missing"])
def test_a_selection_must_be_boolean(sdata, kind):
    table = sdata.tables["table"]
    expected = table.var_names[table.var["selected"]].tolist()
    table.var["selected"] = table.var["selected"].astype("boolean")
    fitted = stp.tl.fit_ridge(sdata, embedding="X_colour", context="spot")
    assert list(fitted.genes) == expected  # a nullable type will do
    if kind == "missing":
        table.var.loc[table.var_names[0], "selected"] = pd.NA
    else:
        table.var["selected"] = table.var["selected"].astype(bool).astype(kind)
    message = r"var\['selected'\] must hold booleans without missing values"
    with pytest.raises(ValueError, match=message):
        stp.tl.fit_ridge(sdata, embedding="X_colour", context="spot")
    with pytest.raises(ValueError, match=message):
        stp.tl.cross_validate(sdata, {"ridge": lambda _: fitted})


@pytest.mark.parametrize(
    ("genes", "error", "message"),
    [
        (["morphology_001", "ERBB2"], KeyError, r"1 of 2 genes are not in the table: ERBB2"),
        ([], ValueError, "genes= is empty"),
        (["null_001", "null_001"], ValueError, "not unique, repeated: null_001"),
    ],
)
def test_bad_genes_are_refused(sdata, genes, error, message):
    with pytest.raises(error, match=message):
        stp.tl.fit_deepspot(sdata, **TINY, genes=genes)


def test_an_unknown_context_is_refused(sdata):
    with pytest.raises(ValueError, match=r"context='galaxy' is not one of 'spot', 'spot_subspot'"):
        stp.tl.fit_deepspot(sdata, **TINY | {"context": "galaxy"})


def test_a_table_alone_is_refused(sdata):
    with pytest.raises(TypeError, match=r"sdata must be a SpatialData .*, not AnnData"):
        stp.tl.fit_deepspot(sdata.tables["table"], **TINY)
