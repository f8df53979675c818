"""Finetuning of published weights: they learn new sections and become ordinary models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import stpredict as stp
from helpers import only
from stpredict import metrics

GOLDEN = Path(__file__).parents[1] / "golden" / "deepspot_release"


def tune(sdata, model, *, max_epochs=40, learning_rate=1e-2, **options):
    schedule = stp.tl.Schedule(
        max_epochs=max_epochs, learning_rate=learning_rate, batch_size=16, monitor="loss"
    )
    options = {"layer": "log1p", "schedule": schedule, "device": "cpu", **options}
    return stp.tl.finetune(sdata, model, **options)


every_release = pytest.mark.parametrize("kind", ["spot", "cell"])


def mixed(tiles):
    """As many features as the release takes, computed from the colour of a tile."""
    weights = torch.rand(6, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    colour = torch.cat([tiles.mean((-2, -1)) - 0.7, tiles.std((-2, -1)) - 0.15], dim=1)
    return colour @ weights * 20


@pytest.fixture(scope="module")
def sections():
    sdata = stp.datasets.phantom(
        3, size_px=800, mpp=0.5, pitch_um=40.0, n_morphology=5, n_neighborhood=1, n_null=1
    )
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, mixed, key_added="X_mine", tile_um=40, n_subtiles=3)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture
def new(sections):
    return only(sections, ["S1", "S2"])


@pytest.fixture
def test(sections):
    return only(sections, ["S3"])


def release(sdata, kind):
    return stp.models.from_deepspot(
        GOLDEN / f"{kind}_final_model.pkl",
        genes=sdata.tables["table"].var_names.tolist(),
        embedding="X_mine",
    )


def predicted(sdata, model):
    return stp.tl.predict(sdata, model, device="cpu", copy=True).tables["predicted"]


def scores(sdata, model):
    table = sdata.tables["table"]
    genes = table.var_names[table.var["planted"] == "morphology"].intersection(list(model.genes))
    expected, values = table[:, genes].layers["expected"], predicted(sdata, model)[:, genes].X
    return metrics.pcc(expected, values).mean(), metrics.rmse(expected, values).mean()


@pytest.mark.parametrize(("kind", "train"), [("spot", "all"), ("cell", "head")])
def test_new_sections_are_learnt(kind, train, new, test, tmp_path):
    model = release(new, kind)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    tuned = tune(new, model, train=train)
    (pcc, rmse), (tuned_pcc, tuned_rmse) = scores(test, model), scores(test, tuned)
    assert tuned_rmse < 0.4 * rmse
    assert tuned_pcc > pcc
    if train == "all":  # the golden φ are random numbers
        assert tuned_pcc > max(pcc, 0) + 0.15
    after = tuned.network.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, model.network.state_dict()[name])
        assert torch.equal(tensor, after[name]) != (train == "all" or name.startswith("rho."))

    # what the release does not report is recorded for the new sections
    assert tuned.units == "log(1 + counts per 10,000)"
    assert tuned.training.sections == tuned.training.finetuned_on == ("S1", "S2")
    tuned.save(tmp_path / "tuned")
    loaded = stp.models.load(tmp_path / "tuned")
    np.testing.assert_array_equal(predicted(test, loaded).X, predicted(test, tuned).X)
    for slots in (test.tables["table"].obsm, test.tables["table"].obsp):
        slots.clear()
    stp.pp.prepare(test, loaded, encoder=mixed)
    np.testing.assert_array_equal(
        test.tables["table"].obsm["X_mine"].shape, (test.tables["table"].n_obs, 16)
    )
    stp.tl.predict(test, loaded, device="cpu")
    evaluated = stp.tl.evaluate(test)
    assert not evaluated.leaky
    np.testing.assert_allclose(
        evaluated.summary().loc["predicted", "rmse"],
        metrics.rmse(
            test.tables["table"][:, list(tuned.genes)].layers["log1p"],
            test.tables["predicted"].X,
        ).mean(),
        rtol=1e-4,
    )


@every_release
def test_some_genes_are_finetuned(kind, new, test):
    model = release(new, kind)
    genes = [model.genes[4], model.genes[0], model.genes[2]]
    unchanged = tune(new, model, genes=genes, max_epochs=1, learning_rate=0.0)
    assert list(unchanged.genes) == genes
    np.testing.assert_allclose(
        predicted(test, unchanged).X, predicted(test, model)[:, genes].X, rtol=1e-5, atol=1e-5
    )
    tuned = tune(new, model, genes=genes, max_epochs=10)
    assert scores(test, tuned)[1] < 0.7 * scores(test, unchanged)[1]


@every_release
def test_a_saved_release_is_finetuned_like_the_pickled_one(kind, new, test, tmp_path):
    model = release(new, kind)
    model.save(tmp_path / "model")
    expected, values = (
        predicted(test, tune(new, each, max_epochs=2)).X
        for each in (model, stp.models.load(tmp_path / "model"))
    )
    np.testing.assert_array_equal(values, expected)


def test_the_layer_of_a_release_has_to_be_given(new):
    model = release(new, "spot")
    with pytest.raises(
        ValueError, match=r"release's normalised expression.*name the layer.*layer="
    ):
        stp.tl.finetune(new, model)


def test_embeddings_of_another_width_are_refused(new):
    model = release(new, "spot")
    for slot in ("X_mine", "X_mine_subtiles"):
        new.tables["table"].obsm[slot] = new.tables["table"].obsm[slot][..., :9]
    with pytest.raises(ValueError, match="9 features, the model was trained on 16"):
        stp.tl.finetune(new, model, layer="log1p")
