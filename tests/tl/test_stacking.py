"""Stacks: fitted on out-of-fold predictions, saved as one model; a planted leak has no effect."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

import stpredict as stp
from helpers import colour, only, prepared_phantom
from stpredict import metrics
from stpredict._sdata._spot_table import open_table
from stpredict.models._records import Hyperparameters, StackNetwork
from stpredict.models._stack import rank_mean
from stpredict.nn import MeanOfModels, StackingMLP
from stpredict.targets._genes import Genes
from stpredict.tl._crossval._folds import leave_groups_out
from stpredict.tl._fit_stacking import _fit_meta
from stpredict.tl._fitting._bases import predict_out_of_fold
from stpredict.tl._fitting._split import use_all_rows
from stpredict.tl._fitting._values import genes_of_model
from stpredict.training import Inputs


def noise(tiles):
    """Features that identify a tile and are unrelated to its content."""
    mean = tiles.double().mean((-3, -2, -1))
    return torch.stack([torch.frac(mean * 10**k) for k in range(4, 10)], dim=1).float()


@pytest.fixture(scope="module")
def sections():
    design = {"size_px": 800, "n_morphology": 6, "n_neighborhood": 2, "n_null": 1}
    select = {"n_top_genes": 6, "flavor": "variance"}
    sdata = prepared_phantom(4, design, select=select, n_subtiles=2)
    stp.pp.embed(sdata, noise, key_added="X_noise", tile_um=40, n_subtiles=1)
    return sdata


@pytest.fixture
def train(sections):
    return only(sections, ["S1", "S2", "S3"])


@pytest.fixture
def test(sections):
    return only(sections, ["S4"])


ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", context="spot_subspot")
trees = functools.partial(
    stp.tl.fit_trees, embedding="X_colour", context="spot_neighbors", n_trees=10
)
#: Reproduces its training rows, and predicts no other row.
memory = functools.partial(
    stp.tl.fit_trees,
    embedding="X_noise",
    context="spot",
    n_trees=10,
    min_samples_leaf=1,
    max_features=1.0,
)
BASES = {"ridge": ridge, "trees": trees}


def predicted(sdata, model):
    return stp.tl.predict(sdata, model, copy=True).tables["predicted"]


def pcc(sdata, model):
    measured = sdata.tables["table"][:, list(model.genes)].layers["log1p"].toarray()
    return np.mean(metrics.pcc(measured, predicted(sdata, model).X))


# ---- out of fold ---------------------------------------------------------------------------


def test_every_row_is_predicted_by_bases_fitted_without_its_section(train):
    calls = []

    def spy(sdata):
        calls.append(set(open_table(sdata).section_names))
        assert set(sdata.shapes) == calls[-1]
        assert set(sdata.images) == {f"{name}_image" for name in calls[-1]}
        return ridge(sdata)

    spots = open_table(train)
    folds = leave_groups_out(spots, None, purpose="stacking")
    values, _ = predict_out_of_fold(spots, {"ridge": spy, "trees": trees}, folds, device="cpu")
    assert calls == [{"S2", "S3"}, {"S1", "S3"}, {"S1", "S2"}]
    for name in ("S1", "S2", "S3"):
        others = only(train, [other for other in ("S1", "S2", "S3") if other != name])
        for number, fit in enumerate((ridge, trees)):
            expected = predicted(only(train, [name]), fit(others)).X
            rows = spots.section_of_row == name
            np.testing.assert_array_equal(values[number, rows], expected)


def test_a_mean_fits_every_base_once(train):
    calls = []

    def spy(sdata):
        calls.append(open_table(sdata).section_names)
        return ridge(sdata)

    stp.tl.fit_stacking(train, {"ridge": spy, "trees": trees}, meta="mean")
    assert calls == [["S1", "S2", "S3"]]


def test_patients_are_left_out_as_a_whole(train):
    spots = open_table(train)
    section = spots.section_of_row
    spots.table.obs["patient"] = np.where(section == "S2", "P2", "P1")

    def held_out(groups):
        folds = leave_groups_out(spots, groups, purpose="stacking")
        return {fold.name: list(dict.fromkeys(section[fold.rows])) for fold in folds}

    assert held_out(None) == {"P1": ["S1", "S3"], "P2": ["S2"]}
    assert held_out("region") == {"S1": ["S1"], "S2": ["S2"], "S3": ["S3"]}


def test_a_planted_leak_has_no_effect(train, test):
    """A base that reproduces its training rows gets no weight; on in-fold predictions it would."""
    bases = {"honest": ridge, "memory": memory}
    model = stp.tl.fit_stacking(train, bases, meta="ridge")
    alone = pcc(test, ridge(train))
    assert abs(pcc(test, memory(train))) < 0.1
    assert pcc(test, model) > alone - 0.03
    unseen = np.concatenate([predicted(test, base).X for base in model.bases.values()], axis=1)

    def shares(network):
        """How far each base moves the predictions of the test section."""
        inputs, weight = model.inputs.transform(unseen), network.linear.weight.detach().numpy()
        parts = np.split(inputs, 2, axis=1), np.split(weight, 2, axis=1)
        return [float((part @ w.T).std(axis=0).mean()) for part, w in zip(*parts, strict=True)]

    honest, leaky = shares(model.network)
    assert leaky < 0.15 * honest

    # the same meta-model on predictions of the rows that the bases were fitted on
    spots = open_table(train)
    in_fold = np.concatenate([predicted(train, base).X for base in model.bases.values()], axis=1)
    measured = genes_of_model(spots, model.bases["honest"]).dense()
    rows = use_all_rows(spots, groups=None)
    targets = Genes.fit(measured, np.arange(measured.shape[1]), scaling="standard")
    leaked, _ = _fit_meta(
        Inputs(center=in_fold, scaler=model.inputs),
        targets.transform(measured),
        rows,
        Hyperparameters(network=StackNetwork("ridge")),
        seed=0,
        device="cpu",
    )
    honest, leaky = shares(leaked.network)
    assert leaky > 2 * honest
    with torch.inference_mode():
        outputs = leaked.network(torch.from_numpy(model.inputs.transform(unseen))).numpy()
    held_out = test.tables["table"][:, list(model.genes)].layers["log1p"].toarray()
    assert np.mean(metrics.pcc(held_out, outputs)) < alone - 0.2


# ---- one model -----------------------------------------------------------------------------


@pytest.mark.parametrize("meta", ["mlp", "ridge", "mean", "rank_mean"])
def test_a_stack_is_one_model(meta, train, test, tmp_path):
    schedule = stp.tl.Schedule(learning_rate=1e-2, max_epochs=20, monitor="loss")
    model = stp.tl.fit_stacking(
        train, BASES, meta=meta, n_hidden=16, schedule=schedule, device="cpu"
    )
    assert model.method == "stacking"
    assert model.units == "log(1 + counts per 10,000)"
    assert model.training.sections == ("S1", "S2", "S3")
    assert list(model.bases) == ["ridge", "trees"]
    assert model.history.empty == (meta != "mlp")
    model.save(tmp_path / "stack")
    loaded = stp.models.load(tmp_path / "stack")
    assert {name: base.method for name, base in loaded.bases.items()} == {
        "ridge": "ridge",
        "trees": "trees",
    }
    card = (tmp_path / "stack" / "README.md").read_text(encoding="utf-8")
    assert "- base ridge: ridge; encoder colour" in card

    bare = only(test, ["S4"])
    for slot in ("X_colour", "X_colour_subtiles", "X_noise"):
        del bare.tables["table"].obsm[slot]
    stp.pp.prepare(bare, loaded, encoder=colour)
    expected, values = predicted(test, model), predicted(bare, loaded)
    np.testing.assert_array_equal(values.X, expected.X, strict=True)
    np.testing.assert_array_equal(values.layers["std"], expected.layers["std"])

    stp.tl.predict(test, model)
    summary = stp.tl.evaluate(test).summary()
    assert summary.loc["predicted", "pcc"] > 0.3
    assert summary.loc["predicted", "rmse"] < summary.loc["training_mean", "rmse"]


def test_the_spread_is_that_over_the_bases(train, test):
    model = stp.tl.fit_stacking(train, BASES, meta="mean")
    each = np.stack([predicted(test, base).X for base in model.bases.values()])
    stacked = predicted(test, model)
    np.testing.assert_allclose(stacked.X, each.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stacked.layers["std"], each.std(axis=0), atol=1e-5)


def test_counts_and_factors_are_stacked(train, test):
    fit = functools.partial(
        stp.tl.fit_deepspot,
        embedding="X_colour",
        network=stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=1, n_rho=1, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=2),
    )
    counts = {
        name: functools.partial(fit, layer=None, loss=name)
        for name in ("poisson", "negative_binomial")
    }
    model = stp.tl.fit_stacking(train, counts, meta="mean")
    assert model.units == "counts per 10,000"
    table = train.tables["table"]
    share = table[:, list(model.genes)].X.toarray() / table.X.sum(axis=1).reshape(-1, 1) * 1e4
    np.testing.assert_allclose(model.targets.mean, np.asarray(share).mean(axis=0), rtol=1e-3)
    factors = {"ridge": ridge, "svd": functools.partial(ridge, targets="svd", n_factors=2)}
    model = stp.tl.fit_stacking(train, factors, meta="ridge")
    assert np.isfinite(predicted(test, model).X).all()


def test_pixels_and_embeddings_are_stacked(train, test, tmp_path):
    cnn = functools.partial(
        stp.tl.fit_cnn,
        network=stp.tl.CNNNetwork(tile_px=40),
        tile_um=40,
        schedule=stp.tl.Schedule(max_epochs=1, batch_size=32),
    )
    train = only(train, ["S1", "S2"])
    model = stp.tl.fit_stacking(train, {"cnn": cnn, "ridge": ridge}, meta="mean", device="cpu")
    model.save(tmp_path / "stack")
    bare = only(test, ["S4"])
    del bare.tables["table"].obsm["X_colour"]
    loaded = stp.models.load(tmp_path / "stack")
    stp.pp.prepare(bare, loaded, encoder=colour)
    np.testing.assert_array_equal(predicted(bare, loaded).X, predicted(test, model).X)
    card = (tmp_path / "stack" / "README.md").read_text(encoding="utf-8")
    assert "- base cnn: cnn; tiles pixels of 40 µm at 40 px" in card


def test_stacks_are_stacked(train, test, tmp_path):
    inner = functools.partial(stp.tl.fit_stacking, bases=BASES, meta="mean")
    model = stp.tl.fit_stacking(train, {"inner": inner, "ridge": ridge}, meta="rank_mean")
    model.save(tmp_path / "nested")
    loaded = stp.models.load(tmp_path / "nested")
    np.testing.assert_array_equal(predicted(test, model).X, predicted(test, loaded).X)


def test_stacking_changes_no_table(train):
    def careless(sdata):
        stp.pp.select_genes(sdata, sdata.tables["table"].var_names[:6].tolist())
        return ridge(sdata)

    before = train.tables["table"].copy()
    stp.tl.fit_stacking(train, {"a": careless, "b": careless}, meta="mean")
    after = train.tables["table"]
    assert set(train.tables) == {"table"}
    assert list(before.var["selected"]) == list(after.var["selected"])
    assert repr(before.uns) == repr(after.uns)


# ---- preparing -----------------------------------------------------------------------------


def test_bases_on_several_embeddings_are_prepared_base_by_base(train, test):
    model = stp.tl.fit_stacking(train, {"honest": ridge, "memory": memory}, meta="mean")
    bare = only(test, ["S4"])
    for slot in ("X_colour", "X_colour_subtiles", "X_noise"):
        del bare.tables["table"].obsm[slot]
    with pytest.raises(ValueError, match=r"apply to one embedding.*base by base"):
        stp.pp.prepare(bare, model, encoder=colour)
    with pytest.raises(KeyError, match="is a custom encoder"):
        stp.pp.prepare(bare, model)
    assert "X_colour" not in bare.tables["table"].obsm
    with pytest.raises(KeyError, match=r"X_colour.*stp\.pp\.prepare"):
        stp.tl.predict(bare, model)
    for base, encoder in zip(model.bases.values(), (colour, noise), strict=True):
        stp.pp.prepare(bare, base, encoder=encoder)
    np.testing.assert_array_equal(predicted(bare, model).X, predicted(test, model).X)


# ---- the networks on top -------------------------------------------------------------------


def test_mean_ranks_are_turned_back_into_values():
    random = np.random.default_rng(0)
    values = random.normal(size=(3, 40, 5)).astype(np.float32)
    sections = np.repeat(["a", "b"], [25, 15])
    result = rank_mean(values, sections)
    for name in "ab":
        rows = sections == name
        for gene in range(5):
            ranks = np.mean([rankdata(base[rows, gene]) for base in values], axis=0)
            mean = values[:, rows, gene].mean(axis=0)
            if len(set(ranks)) == len(ranks):  # without ties, the values of the mean
                np.testing.assert_allclose(np.sort(result[rows, gene]), np.sort(mean), rtol=1e-6)
            np.testing.assert_array_equal(
                rankdata(result[rows, gene].round(6)), rankdata(ranks.round(6))
            )
    alike = np.stack([values[0], values[0]])
    np.testing.assert_allclose(rank_mean(alike, sections), values[0], atol=1e-6)
    # only the order of a base matters, not its units
    scaled = values.copy()
    scaled[1] = values[1] ** 3
    order = [rankdata(rank_mean(each, sections)[:25], axis=0) for each in (values, scaled)]
    np.testing.assert_array_equal(*order)


def test_the_mlp_takes_a_single_row_and_a_batch():
    torch.manual_seed(0)
    network = StackingMLP(6, 3, n_hidden=8)
    widths = [layer.out_features for layer in network.layers if hasattr(layer, "out_features")]
    assert widths == [8, 4, 3]
    before = network.layers[2].running_mean.clone()
    network.train()(torch.rand(1, 6)).sum().backward()
    assert torch.equal(before, network.layers[2].running_mean)
    network(torch.rand(4, 6))
    assert not torch.equal(before, network.layers[2].running_mean)
    network.eval()
    rows = torch.rand(5, 6)
    torch.testing.assert_close(network(rows)[:1], network(rows[:1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StackingMLP(4, 2, n_hidden=1), "n_hidden=1 must be at least 2"),
        (lambda: StackingMLP(4, 2, dropout=1.0), "dropout=1.0 must be"),
        (lambda: MeanOfModels(5, 2), "n_features=5 must be a multiple of n_targets=2"),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- bad input -----------------------------------------------------------------------------


def never(sdata):
    raise AssertionError("a base was fitted before all was checked")


def test_a_single_group_is_refused(train):
    one = only(train, ["S2"])
    with pytest.raises(ValueError, match=r"only one section, 'S2': give more sect"):
        stp.tl.fit_stacking(one, {"a": never, "b": never})
    train.tables["table"].obs["batch"] = "B1"
    with pytest.raises(ValueError, match=r"only one batch, 'B1'"):
        stp.tl.fit_stacking(train, {"a": never, "b": never}, groups="batch")


def test_groups_within_a_section_are_refused(train):
    obs = train.tables["table"].obs
    obs["half"] = np.arange(len(obs)) % 2
    with pytest.raises(ValueError, match=r"groups='half' splits the sections S1.*whole sections"):
        stp.tl.fit_stacking(train, {"a": never, "b": never}, groups="half")


@pytest.mark.parametrize(
    ("bases", "options", "error", "message"),
    [
        ({"a": never}, {}, ValueError, "at least two bases, not 1"),
        ([never, never], {}, TypeError, "bases must be a mapping, not list"),
        ({"a": never, "b": "ridge"}, {}, TypeError, r"bases\['b'\] must be a function.*str"),
        ({"a": never, "b": never}, {"meta": "median"}, ValueError, "meta='median' is not one of"),
        ({"a": never, "b": never}, {"meta": "mlp", "dropout": 1}, ValueError, "dropout=1 must be"),
        ({"a": never, "b": never}, {"groups": "donor"}, KeyError, "no column groups='donor'"),
        ({"a": lambda _: None, "b": never}, {}, TypeError, "must return a fitted model.*NoneType"),
    ],
)
def test_bad_bases_and_options_are_refused(train, bases, options, error, message):
    with pytest.raises(error, match=message):
        stp.tl.fit_stacking(train, bases, **options)


def test_bases_that_predict_different_genes_or_units_are_refused(train):
    genes = train.tables["table"].var_names[:3].tolist()
    for other, message in (
        (functools.partial(ridge, genes=genes), r"same genes.*'b' predicts 3 and 'a' 6"),
        (
            functools.partial(ridge, layer=None),
            r"units, but 'b' predicts 'counts' and 'a' 'log\(1",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            stp.tl.fit_stacking(train, {"a": ridge, "b": other})


def test_a_fitted_model_is_refused_as_a_base(train):
    fitted = ridge(train)
    with pytest.raises(ValueError, match=r"'b' was to.*was trained on S1.*not a fitted model"):
        stp.tl.fit_stacking(train, {"a": ridge, "b": lambda _: fitted}, meta="ridge")
    mean = functools.partial(stp.tl.fit_stacking, bases={"a": ridge, "b": lambda _: fitted})
    with pytest.raises(ValueError, match=r"'mean' was to.*was trained on S1.*not a fitted model"):
        stp.tl.cross_validate(train, {"mean": mean})


def test_a_stack_does_not_predict_arrays(train):
    model = stp.tl.fit_stacking(train, BASES, meta="mean")
    with pytest.raises(ValueError, match=r"model\.bases\[name\]\.predict_array.*stp\.tl\.predict"):
        model.predict_array(np.zeros((2, 12)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bases": ["ridge"]}, "at least two bases, found 1"),
        ({"bases": ["ridge", "trees", "third"]}, "there is no model at"),
        ({"method": "ridge", "context": "spot"}, "cannot be read"),
    ],
)
def test_a_damaged_stack_is_refused(train, tmp_path, change, message):
    stp.tl.fit_stacking(train, BASES, meta="mean").save(tmp_path / "stack")
    config = tmp_path / "stack" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        stp.models.load(tmp_path / "stack")


def test_a_stack_with_an_exchanged_base_is_refused(train, tmp_path):
    stp.tl.fit_stacking(train, BASES, meta="mean").save(tmp_path / "stack")
    genes = train.tables["table"].var_names[:3].tolist()
    ridge(train, genes=genes).save(tmp_path / "stack" / "base_0")
    with pytest.raises(ValueError, match="base 'ridge' predicts other genes"):
        stp.models.load(tmp_path / "stack")
