"""The session of the README, as it is written there, on the phantom instead of the data set."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import stpredict as stp
from helpers import run_readme_example

NAMES = {"C2": "S1", "C3": "S2", "C4": "S3", "C5": "S4"}


def her2st(sections):
    """Sections of one phantom, in which genes that depend on morphology have real names."""
    sdata = stp.datasets.phantom(
        4,
        size_px=820,
        mpp=1.0,
        pitch_um=80.0,
        n_morphology=150,
        n_neighborhood=50,
        n_null=60,
        counts_per_spot=20_000,
        n_patients=1,
    )
    table = sdata.tables["table"]
    table.var_names = ["ERBB2", "KRT18", *table.var_names[2:]]
    names = [NAMES[section] for section in sections]
    return sdata.subset([element for name in names for element in (name, f"{name}_image")])


@pytest.fixture(autouse=True)
def _session(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stp.datasets, "her2st", her2st)
    yield
    plt.close("all")


def test_the_session_runs_as_written(capsys, tmp_path):
    train = stp.datasets.her2st(["C2", "C3", "C4"])
    stp.pp.filter_spots(train)
    stp.pp.normalize(train)
    stp.pp.select_genes(train, n_top_genes=250)
    stp.pp.embed(train, "texture", tile_um=[112, 224, 448])
    stp.pp.neighbors(train)
    # fewer epochs than in the README
    model = stp.tl.fit_deepspot(train, schedule=stp.tl.Schedule(max_epochs=40))
    ridge = stp.tl.fit_ridge(train)
    stp.pl.loss_curve(model)
    model.save("deepspot_her2")

    model = stp.models.load("deepspot_her2")
    new = stp.datasets.her2st(["C5"])
    stp.pp.filter_spots(new)
    stp.pp.prepare(new, model)
    stp.tl.predict(new, model)
    stp.tl.predict(new, ridge, key_added="ridge")
    scores = stp.tl.evaluate(new, ["predicted", "ridge"])
    stp.pl.prediction(new, ["ERBB2", "KRT18"])

    assert len(model.genes) == 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deepspot_her2"]
    planted = new.tables["table"].var["planted"]
    for method in ("predicted", "ridge"):
        assert new.tables[method].shape == (new.tables["table"].n_obs, 250)
        assert np.isfinite(new.tables[method].X).all()
        genes = scores.genes(method)
        of_morphology = (planted[genes.index] == "morphology").to_numpy()
        assert genes.loc[of_morphology, "pcc"].mean() > 0.4
        assert abs(genes["pcc_shuffled"].mean()) < 0.03
    printed = capsys.readouterr().out
    assert "filter_spots:" in printed
    assert "LEAKY: patients P1 in both training and test. S4, trained on S1" in printed


def test_the_example_without_data_runs_as_written():
    names = run_readme_example("Without data,")
    morphology, null = plt.gcf().axes[2].get_title(), plt.gcf().axes[5].get_title()
    assert morphology.startswith("morphology_001 predicted (PCC 0.")
    assert null.startswith("null_001 predicted")
    scores = stp.tl.evaluate(names["new"], ["predicted"]).genes("predicted")["pcc"]
    assert scores["morphology_001"] > 0.5
    assert abs(scores["null_001"]) < 0.3
