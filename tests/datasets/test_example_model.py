"""The example model: small, calibrated, and the one that the present code trains."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import stpredict as stp
from helpers import run_readme_example

FOLDER = Path(stp.__file__).parent / "datasets" / "example_model"
HER2ST = Path(__file__).parents[3] / "shared" / "data" / "her2st"
on_her2st = pytest.mark.skipif(not HER2ST.is_dir(), reason="no real data: ../shared/data/her2st")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    yield
    plt.close("all")


def test_the_example_model_is_calibrated_and_small():
    model = stp.datasets.example_model()
    assert model.method == "ridge"
    assert len(model.genes) == 250
    assert model.training.sections == ("C2", "C3", "C4")
    assert sorted(model.calibration.coverage_of_groups) == ["C2", "C3", "C4"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000


def test_the_card_credits_the_data_and_names_what_the_model_is_for():
    card = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    for text in (
        "Andersson et al.",
        "CC-BY 4.0",
        "C5 is of the same patient",
        "not meant for other tissue",
    ):
        assert text in card


def test_tissue_of_another_kind_is_predicted_with_a_warning_and_without_intervals():
    model, sdata = stp.datasets.example_model(), stp.datasets.phantom(size_px=1500)
    stp.pp.prepare(sdata, model)
    with pytest.warns(UserWarning, match=r"tiles of S1 .* look unlike those of the training"):
        stp.tl.predict(sdata, model)
    predicted = sdata.tables["predicted"]
    assert predicted.shape == (sdata.tables["table"].n_obs, 250)
    assert np.isfinite(predicted.X).all()
    assert np.isnan(predicted.layers["lower"]).all()
    assert predicted.var["reliable"].isna().all()


@pytest.fixture(scope="module")
def session():
    """Names that the example of the README leaves: C5 with predictions, and its scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STPREDICT_HER2ST", str(HER2ST))
        patch.setattr(stp.settings, "verbosity", 0)
        names = run_readme_example("Without training,")
    names["title"] = plt.gcf().axes[2].get_title()
    return names


@on_her2st
def test_the_example_of_the_readme_reaches_the_score_of_the_card(session):
    summary = session["scores"].summary()
    card = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    pcc = float(re.search(r"Pearson correlation over genes (0\.\d+)", card)[1])
    assert summary.loc["predicted", "pcc"] == pytest.approx(pcc, abs=0.005)
    assert summary.loc["predicted", "pcc"] > summary.loc["neighbor_mean", "pcc"]
    assert abs(summary.loc["predicted", "pcc_shuffled"]) < 0.02
    assert "(PCC 0." in session["title"]


@on_her2st
def test_the_present_code_trains_the_stored_model(import_benchmark, session):
    script, stored, new = import_benchmark("example_model"), session["model"], session["new"]
    fit = script.METHODS[stored.calibration.method]
    trained = fit(script.read_training(HER2ST))
    assert trained.genes == stored.genes
    assert trained.hyperparameters == stored.hyperparameters
    assert trained.recipe == stored.recipe
    predicted = np.asarray(new.tables["predicted"].X)
    np.testing.assert_allclose(script.predict(new, trained), predicted, atol=0.01)
