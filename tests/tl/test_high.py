"""High or low expression: learnt, predicted as probabilities, and scored at the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import stpredict as stp
from helpers import only, prepared_phantom
from stpredict import metrics

TINY = {
    "network": stp.tl.DeepSpotNetwork(n_hidden=32, n_phi=2, n_rho=2, n_networks=1, dropout=0.1),
    "schedule": stp.tl.Schedule(max_epochs=40, learning_rate=5e-3, monitor="loss"),
    "device": "cpu",
}


@pytest.fixture(scope="module")
def prepared():
    design = {"size_px": 1000, "n_morphology": 3, "n_neighborhood": 1, "n_null": 2}
    return prepared_phantom(4, design, select={"n_top_genes": 6}, encoder="texture")


@pytest.fixture(scope="module")
def model(prepared):
    return stp.tl.fit_deepspot(only(prepared, ["S1", "S2", "S3"]), targets="high", **TINY)


@pytest.fixture
def test_section(prepared, model):
    section = only(prepared, ["S4"])
    stp.tl.predict(section, model, device="cpu")
    return section


def measured_high(model, section):
    table = section["table"][:, list(model.genes)]
    return model.targets.transform(table.layers["log1p"])


def test_planted_genes_are_recognised_as_high(model, test_section):
    table, predicted = test_section["table"], test_section["predicted"].X
    kind = table.var["planted"].astype(str).to_numpy()
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    auc = metrics.auc(measured_high(model, test_section), predicted)
    assert auc[kind == "morphology"].mean() > 0.8
    assert abs(auc[kind == "null"].mean() - 0.5) < 0.15


def test_thresholds_are_quantiles_of_all_rows_whichever_are_held_out(prepared, model):
    sections = only(prepared, ["S1", "S2", "S3"])
    training = sections["table"][:, list(model.genes)].layers["log1p"].toarray()
    expected = np.quantile(training, 0.5, axis=0, method="lower").astype(np.float32)
    ridge = stp.tl.fit_ridge(sections, targets="high")
    for one in (model, ridge):
        np.testing.assert_array_equal(one.targets.threshold, expected)
        assert one.targets.quantile == 0.5
        assert one.units == "probability of high log(1 + counts per 10,000)"
    assert model.hyperparameters.loss == "bce"
    rare = stp.tl.fit_ridge(sections, targets="high", quantile=0.9)
    expected = np.quantile(training, 0.9, axis=0, method="lower").astype(np.float32)
    np.testing.assert_array_equal(rare.targets.threshold, expected)


def test_scores_are_those_at_the_threshold(model, test_section):
    scores = stp.tl.evaluate(test_section)
    auc = scores.values("auc")["predicted"]
    is_high = measured_high(model, test_section)
    predicted = test_section["predicted"].X
    for place, gene in enumerate(model.genes):
        expected = roc_auc_score(is_high[:, place], predicted[:, place])
        assert auc.xs(gene, level="gene").item() == pytest.approx(expected)
    assert scores.protocol.units == model.units
    rmse = scores.summary().loc["training_mean", "rmse"]
    share = model.targets.mean
    assert rmse == pytest.approx(np.sqrt(((is_high - share) ** 2).mean(0)).mean(), rel=1e-5)


def test_another_layer_has_no_high_values(test_section):
    stp.pp.rank_expression(test_section)
    with pytest.raises(ValueError, match="layer='ranks' has other values than layer='log1p'"):
        stp.tl.evaluate(test_section, layer="ranks")


def test_a_saved_model_predicts_the_same_and_can_be_finetuned(prepared, model, tmp_path):
    model.save(tmp_path / "high")
    loaded = stp.models.load(tmp_path / "high")
    section = only(prepared, ["S4"])
    first, second = (
        stp.tl.predict(section, one, copy=True, device="cpu")["predicted"].X
        for one in (model, loaded)
    )
    np.testing.assert_array_equal(first, second)
    tuned = stp.tl.finetune(section, loaded, schedule=stp.tl.Schedule(max_epochs=1), device="cpu")
    np.testing.assert_array_equal(tuned.targets.threshold, model.targets.threshold)
    assert tuned.units == model.units
    with pytest.raises(ValueError, match="loss='mse' does not suit a model that predicts prob"):
        stp.tl.finetune(section, loaded, loss="mse")


def test_measured_values_are_drawn_as_high_or_low(model, test_section):
    from stpredict.pl._drawing._panels import measured_values

    rows = np.arange(test_section["table"].n_obs)
    genes = list(model.genes)[:2]
    drawn = measured_values(test_section["table"], test_section["predicted"], rows, genes)
    np.testing.assert_array_equal(drawn, measured_high(model, test_section)[:, :2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantile": 0.0}, "quantile must be above 0 and below 1, such as 0.5: 0.0"),
        ({"quantile": 1.0}, "quantile must be above 0 and below 1"),
        ({"loss": "mse"}, "loss='mse' does not suit targets='high': use 'bce'"),
        ({"scaling": "standard"}, 'targets="high" has no scaling and no factors'),
        ({"n_factors": 3}, 'targets="high" has no scaling and no factors'),
        ({"targets": "genes", "quantile": 0.5}, 'quantile=0.5 is only for targets="high"'),
        (
            {"targets": "genes", "loss": "bce"},
            "loss='bce' does not suit targets='genes'",
        ),
    ],
)
def test_bad_options_are_refused(prepared, arguments, message):
    with pytest.raises(ValueError, match=message):
        stp.tl.fit_deepspot(prepared, **{"targets": "high", **TINY, **arguments})
