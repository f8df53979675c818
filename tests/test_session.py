"""The session of the README, as it is written there, on the phantom in place of the data set."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import stpredict as stp

NAMES = {"C2": "S1", "C3": "S2", "C4": "S3", "C5": "S4"}


def her2st(sections):
    """Sections of one phantom, in which a gene that answers to morphology is called ERBB2."""
    sdata = stp.datasets.phantom(
        4,
        size_px=750,
        mpp=1.0,
        pitch_um=80.0,
        n_morphology=150,
        n_neighborhood=50,
        n_null=60,
        counts_per_spot=20_000,
        n_patients=1,
    )
    table = sdata.tables["table"]
    table.var_names = ["ERBB2", *table.var_names[1:]]
    wanted = [NAMES[section] for section in sections]
    return sdata.subset([element for name in wanted for element in (name, f"{name}_image")])


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
    stp.pp.embed(train, "texture")
    stp.pp.neighbors(train)
    # fewer epochs than in earnest
    model = stp.tl.fit_deepspot(train, embedding="X_texture", max_epochs=40)
    stp.pl.loss_curve(model)
    model.save("deepspot_her2")

    model = stp.models.load("deepspot_her2")
    new = stp.datasets.her2st(["C5"])
    stp.pp.prepare(new, model)
    stp.tl.predict(new, model)
    scores = stp.tl.evaluate(new)
    stp.pl.prediction(new, "ERBB2")

    assert len(model.genes) == 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deepspot_her2"]
    assert new.tables["predicted"].shape == (new.tables["table"].n_obs, 250)
    planted = new.tables["table"].var.loc[scores.index, "planted"]
    assert scores.loc[planted == "morphology", "pcc"].mean() > 0.4
    assert abs(scores["pcc_shuffled"].mean()) < 0.03
    said = capsys.readouterr().out
    assert "filter_spots:" in said
    assert "Held out; the model was trained on S1, S2, S3" in said
    assert np.isfinite(new.tables["predicted"].X).all()
