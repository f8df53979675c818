"""Stacks: out of fold, one folder, one predict; a planted leak does not get through."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._elements import copy_of
from stpredict.models._stack import rank_mean
from stpredict.nn import MeanOfModels, StackingMLP
from stpredict.targets._genes import Genes
from stpredict.tl._crossval import _folds
from stpredict.tl._crossval._folds import folds_of
from stpredict.tl._fitting._bases import out_of_fold
from stpredict.tl._fitting._measured import values_of_genes
from stpredict.tl._fitting._meta import fit_meta
from stpredict.tl._fitting._split import whole
from stpredict.training import Schedule


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


def noise(tiles):
    """Numbers that say which tile it is, and nothing of what it shows."""
    mean = tiles.double().mean((-3, -2, -1))
    return torch.stack([torch.frac(mean * 10**k) for k in range(4, 10)], dim=1).float()


@pytest.fixture(scope="module")
def sections():
    sdata = stp.datasets.phantom(
        4, size_px=800, mpp=0.5, pitch_um=40, n_morphology=6, n_neighborhood=2, n_null=1
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=6, flavor="variance")
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=2)
    stp.pp.embed(sdata, noise, key_added="X_noise", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture
def train(sections):
    return only(sections, ["S1", "S2", "S3"])


@pytest.fixture
def test(sections):
    return only(sections, ["S4"])


def only(sdata, names):
    return _folds.only(sdata, np.flatnonzero(np.isin(_sections.region_of(sdata["table"]), names)))


ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", context="spot_subspot")
trees = functools.partial(
    stp.tl.fit_trees, embedding="X_colour", context="spot_neighbors", n_trees=10
)
#: Remembers every row it has seen, and knows nothing of others.
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
    table = predicted(sdata, model)
    truth = sdata.tables["table"][:, list(model.genes)].layers["log1p"].toarray()
    return np.mean(metrics.pcc(truth, table.X))


# ---- out of fold ---------------------------------------------------------------------------


def test_every_row_is_predicted_by_bases_that_have_not_seen_its_section(train):
    seen = []

    def spy(sdata, fit=ridge):
        seen.append(set(_sections.section_names(sdata.tables["table"])))
        assert set(sdata.shapes) == seen[-1]
        assert set(sdata.images) == {f"{name}_image" for name in seen[-1]}
        return fit(sdata)

    folds = folds_of(train.tables["table"], None, purpose="stacking")
    values, _ = out_of_fold(train, {"ridge": spy, "trees": trees}, folds, device="cpu")
    assert seen == [{"S2", "S3"}, {"S1", "S3"}, {"S1", "S2"}]
    region = _sections.region_of(train.tables["table"])
    for name in ("S1", "S2", "S3"):
        others = only(train, [other for other in ("S1", "S2", "S3") if other != name])
        for number, fit in enumerate((ridge, trees)):
            alone = predicted(only(train, [name]), fit(others)).X
            np.testing.assert_array_equal(values[number, region == name], alone)


def test_patients_are_left_out_as_a_whole(train):
    table = train.tables["table"]
    table.obs["patient"] = np.where(_sections.region_of(table) == "S2", "P2", "P1")
    region = _sections.region_of(table)

    def held_out(groups):
        found = folds_of(table, groups, purpose="stacking")
        return {name: list(dict.fromkeys(region[rows])) for name, rows in found}

    assert held_out(None) == {"P1": ["S1", "S3"], "P2": ["S2"]}
    assert held_out("region") == {"S1": ["S1"], "S2": ["S2"], "S3": ["S3"]}


def test_a_planted_leak_is_not_trusted(train, test):
    """A base that remembers its training rows counts for nothing, but would in-fold."""
    bases = {"honest": ridge, "memory": memory}
    model = stp.tl.fit_stacking(train, bases, meta="ridge")
    alone = pcc(test, ridge(train))
    assert abs(pcc(test, memory(train))) < 0.1
    assert pcc(test, model) > alone - 0.03
    outside = np.concatenate([predicted(test, base).X for base in model.bases], axis=1)

    def shares(network):
        """How far each base moves the predictions of the test section."""
        seen, weight = model.inputs.transform(outside), network.linear.weight.detach().numpy()
        parts = np.split(seen, 2, axis=1), np.split(weight, 2, axis=1)
        return [float((part @ w.T).std(axis=0).mean()) for part, w in zip(*parts, strict=True)]

    honest, leaky = shares(model.network)
    assert leaky < 0.15 * honest

    # the same meta-model on what the bases say of the rows they were fitted on
    table = train.tables["table"]
    in_fold = np.concatenate([predicted(train, base).X for base in model.bases], axis=1)
    values = values_of_genes(table, model.bases[0])
    rows = whole(table, _sections.sections(train), groups=None, seed=0)
    scaled = Genes.fit(values.dense(rows.training), values.columns, scaling="standard")
    leaked, _ = fit_meta(
        in_fold,
        values,
        scaled,
        rows,
        options={"meta": "ridge", "n_hidden": 8, "dropout": 0.0},
        schedule=Schedule(1, 1, 8, 0.1, 0.0),
        seed=0,
        device="cpu",
    )
    honest, leaky = shares(leaked.network)
    assert leaky > 2 * honest
    with torch.inference_mode():
        guessed = leaked.network(torch.from_numpy(model.inputs.transform(outside))).numpy()
    truth = test.tables["table"][:, list(model.genes)].layers["log1p"].toarray()
    assert np.mean(metrics.pcc(truth, guessed)) < alone - 0.2


# ---- one model -----------------------------------------------------------------------------


@pytest.mark.parametrize("meta", ["mlp", "ridge", "mean", "rank_mean"])
def test_a_stack_is_one_model(meta, train, test, tmp_path):
    model = stp.tl.fit_stacking(
        train, BASES, meta=meta, n_hidden=16, learning_rate=1e-2, max_epochs=20, device="cpu"
    )
    assert model.method == "stacking"
    assert model.units == "log(1 + counts per 10,000)"
    assert model.training["sections"] == ["S1", "S2", "S3"]
    assert model.hyperparameters["bases"] == ["ridge", "trees"]
    assert model.history.empty == (meta != "mlp")
    model.save(tmp_path / "stack")
    loaded = stp.models.load(tmp_path / "stack")
    assert [base.method for base in loaded.bases] == ["ridge", "trees"]
    card = (tmp_path / "stack" / "README.md").read_text(encoding="utf-8")
    assert "`ridge`, in `base_0`: ridge from encoder" in card

    bare = only(test, ["S4"])
    for slot in ("X_colour", "X_colour_subtiles", "X_noise"):
        del bare.tables["table"].obsm[slot]
    stp.pp.prepare(bare, loaded, encoder=colour)
    ours, theirs = predicted(test, model), predicted(bare, loaded)
    np.testing.assert_array_equal(ours.X, theirs.X, strict=True)
    np.testing.assert_array_equal(ours.layers["std"], theirs.layers["std"])
    np.testing.assert_array_equal(
        ours.layers["ridge"], predicted(test, model.bases[0]).layers["ridge"]
    )
    assert ours.uns["stpredict"]["predict"]["ridge_alpha"] == model.bases[0].ridge.alpha

    stp.tl.predict(test, model)
    summary = stp.tl.evaluate(test).attrs["summary"]
    assert summary["model"]["mean PCC"] > 0.3
    assert summary["model"]["mean RMSE"] < summary["training mean"]["mean RMSE"]


def test_the_spread_is_that_of_the_bases(train, test):
    model = stp.tl.fit_stacking(train, BASES, meta="mean")
    each = np.stack([predicted(test, base).X for base in model.bases])
    stacked = predicted(test, model)
    np.testing.assert_allclose(stacked.X, each.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stacked.layers["std"], each.std(axis=0), atol=1e-5)


def test_a_stack_of_counts_and_of_factors(train, test):
    fit = functools.partial(
        stp.tl.fit_deepspot, embedding="X_colour", n_hidden=8, n_phi=1, n_rho=1, max_epochs=2
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


def test_a_stack_of_pixels_and_embeddings(train, test, tmp_path):
    cnn = functools.partial(
        stp.tl.fit_cnn, tile_um=40, tile_px=40, max_epochs=1, average_symmetries=False
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
    assert "`cnn`, in `base_0`: cnn from pixels: tiles of 40 µm" in card


def test_a_stack_of_stacks(train, test, tmp_path):
    inner = functools.partial(stp.tl.fit_stacking, bases=BASES, meta="mean")
    model = stp.tl.fit_stacking(train, {"inner": inner, "ridge": ridge}, meta="rank_mean")
    model.save(tmp_path / "nested")
    loaded = stp.models.load(tmp_path / "nested")
    np.testing.assert_array_equal(predicted(test, model).X, predicted(test, loaded).X)


def test_fitting_changes_nothing(train):
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


def test_bases_on_several_embeddings_are_prepared_one_by_one(train, test):
    model = stp.tl.fit_stacking(train, {"honest": ridge, "memory": memory}, meta="mean")
    bare = only(test, ["S4"])
    for slot in ("X_colour", "X_colour_subtiles", "X_noise"):
        del bare.tables["table"].obsm[slot]
    with pytest.raises(ValueError, match=r"several embeddings \(X_colour, X_noise\).*base by base"):
        stp.pp.prepare(bare, model, encoder=colour)
    with pytest.raises(KeyError, match=r"encoder of your own, 'colour'"):
        stp.pp.prepare(bare, model)
    assert "X_colour" not in bare.tables["table"].obsm
    with pytest.raises(KeyError, match=r"X_colour.*stp\.pp\.prepare"):
        stp.tl.predict(bare, model)
    for base, encoder in zip(model.bases, (colour, noise), strict=True):
        stp.pp.prepare(bare, base, encoder=encoder)
    np.testing.assert_array_equal(predicted(bare, model).X, predicted(test, model).X)


# ---- the networks on top -------------------------------------------------------------------


def test_ranks_are_averaged_and_come_back_in_units():
    random = np.random.default_rng(0)
    values = random.normal(size=(3, 40, 5)).astype(np.float32)
    sections = np.repeat(["a", "b"], [25, 15])
    found = rank_mean(values, sections)
    for name in "ab":
        rows = sections == name
        for gene in range(5):
            ranks = np.mean([rankdata(base[rows, gene]) for base in values], axis=0)
            mean = values[:, rows, gene].mean(axis=0)
            if len(set(ranks)) == len(ranks):  # no ties: the very values of the mean
                np.testing.assert_allclose(np.sort(found[rows, gene]), np.sort(mean), rtol=1e-6)
            np.testing.assert_array_equal(
                rankdata(found[rows, gene].round(6)), rankdata(ranks.round(6))
            )
    alike = np.stack([values[0], values[0]])
    np.testing.assert_allclose(rank_mean(alike, sections), values[0], atol=1e-6)
    # whatever the units of a base, its order counts
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
def test_sizes_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- bad input -----------------------------------------------------------------------------


def never(sdata):
    raise AssertionError("a base was fitted before all was checked")


def test_a_single_group(train):
    one = only(train, ["S2"])
    with pytest.raises(ValueError, match=r"only one section, 'S2', but stacking.*give more sect"):
        stp.tl.fit_stacking(one, {"a": never, "b": never})
    train.tables["table"].obs["batch"] = "B1"
    with pytest.raises(ValueError, match=r"only one batch, 'B1'"):
        stp.tl.fit_stacking(train, {"a": never, "b": never}, groups="batch")


def test_groups_within_a_section(train):
    obs = train.tables["table"].obs
    obs["half"] = np.arange(len(obs)) % 2
    with pytest.raises(ValueError, match=r"groups='half' splits S1, S2, S3, but.*whole sections"):
        stp.tl.fit_stacking(train, {"a": never, "b": never}, groups="half")


@pytest.mark.parametrize(
    ("bases", "options", "error", "message"),
    [
        ({"a": never}, {}, ValueError, "at least two bases, but has 1"),
        ([never, never], {}, TypeError, "functions by name.*list"),
        ({"a": never, "b": "ridge"}, {}, TypeError, r"bases\['b'\] must be a function.*str"),
        ({"a": never, "b": never}, {"meta": "median"}, ValueError, "meta='median' is not one of"),
        ({"a": never, "b": never}, {"meta": "mlp", "dropout": 1}, ValueError, "dropout=1 must be"),
        (
            {"a": never, "b": never},
            {"meta": "mlp", "max_epochs": 0},
            ValueError,
            "max_epochs must be",
        ),
        ({"a": never, "b": never}, {"groups": "donor"}, KeyError, "groups='donor' is no column"),
        ({"a": lambda _: None, "b": never}, {}, TypeError, "must return a fitted model.*NoneType"),
    ],
)
def test_what_cannot_be_stacked(train, bases, options, error, message):
    with pytest.raises(error, match=message):
        stp.tl.fit_stacking(train, bases, **options)


def test_bases_that_predict_different_things(train):
    genes = train.tables["table"].var_names[:3].tolist()
    for other, message in (
        (functools.partial(ridge, genes=genes), r"same genes.*'b' predicts 3, 'a' 6"),
        (functools.partial(ridge, layer=None), r"same units: 'b' predicts 'X', 'a' 'log\(1"),
    ):
        with pytest.raises(ValueError, match=message):
            stp.tl.fit_stacking(train, {"a": ridge, "b": other})


def test_a_fitted_model_is_no_base(train):
    fitted = ridge(train)
    with pytest.raises(ValueError, match=r"'b' was to.*was trained on S1.*not a fitted model"):
        stp.tl.fit_stacking(train, {"a": ridge, "b": lambda _: fitted})


def test_arrays_are_predicted_by_the_bases(train):
    model = stp.tl.fit_stacking(train, BASES, meta="mean")
    with pytest.raises(ValueError, match=r"its bases do.*stp\.tl\.predict"):
        model.predict_array(np.zeros((2, 12)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_bases": 1}, "at least two models, not on 1"),
        ({"n_bases": 3}, "there is no model at"),
        ({"method": "ridge", "context": "spot"}, "cannot be read"),
    ],
)
def test_a_damaged_stack(train, tmp_path, change, message):
    stp.tl.fit_stacking(train, BASES, meta="mean").save(tmp_path / "stack")
    config = tmp_path / "stack" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        stp.models.load(tmp_path / "stack")


def test_a_stack_whose_base_was_exchanged(train, tmp_path):
    stp.tl.fit_stacking(train, BASES, meta="mean").save(tmp_path / "stack")
    genes = train.tables["table"].var_names[:3].tolist()
    ridge(train, genes=genes).save(tmp_path / "stack" / "base_0")
    with pytest.raises(ValueError, match="base_0 predicts other genes"):
        stp.models.load(tmp_path / "stack")
