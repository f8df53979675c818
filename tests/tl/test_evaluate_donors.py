"""Scores of sections whose donor was in training are marked; spots with few counts are reported."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import spatialdata as sd

import stpredict as stp
from helpers import only, ridge
from stpredict._sdata._spot_table import copy_of

PATIENTS = {"S1": "A", "S2": "B", "S3": "A"}


@pytest.fixture
def sdata(colour_sections):
    """Three sections; the first and the third are of one patient."""
    sdata = copy_of(colour_sections)
    label(sdata)
    return sdata


def label(sdata, column="patient"):
    table = sdata["table"]
    table.obs[column] = table.obs["region"].astype(str).map(PATIENTS).astype("category")


def fitted(sdata, *names, **options):
    return ridge(only(sdata, names), alpha=1.0, **options)


def test_another_section_of_a_training_patient_is_named(sdata):
    model, new = fitted(sdata, "S1"), only(sdata, ["S2", "S3"])
    stp.tl.predict(new, model)
    scores = stp.tl.evaluate(new)
    assert scores.leaky
    assert scores.protocol.leaking_patients == ("A",)
    assert scores.protocol.leaking_sections == ()
    assert str(scores.protocol).startswith("LEAKY: patients A in both training and test.")
    other = only(sdata, ["S2"])
    stp.tl.predict(other, model)
    assert not stp.tl.evaluate(other).leaky


def test_saved_models_and_predictions_keep_the_patients(sdata, tmp_path):
    fitted(sdata, "S1", "S2").save(tmp_path / "model")
    model, new = stp.models.load(tmp_path / "model"), only(sdata, ["S3"])
    assert model.training.donors == {"patient": ("A", "B")}
    stp.tl.predict(new, model)
    new.write(tmp_path / "new.zarr")
    assert stp.tl.evaluate(sd.read_zarr(tmp_path / "new.zarr")).protocol.leaking_patients == ("A",)


def test_the_column_given_replaces_the_patients(sdata):
    label(sdata, "donor")
    del sdata["table"].obs["patient"]
    new = only(sdata, ["S3"])
    for groups, is_recorded in (("donor", True), (None, False)):
        stp.tl.predict(new, fitted(sdata, "S1", "S2", groups=groups))
        assert not stp.tl.evaluate(new).leaky  # obs has no patients
        scores = stp.tl.evaluate(new, groups="donor")
        assert scores.leaky == is_recorded
        note = "'predicted' does not record obs['donor'] of its training sections"
        assert (note in str(scores.protocol)) != is_recorded
    with pytest.raises(KeyError, match="groups='nobody'"):
        stp.tl.evaluate(new, groups="nobody")


def test_patients_of_training_sections_in_the_same_object_are_known(sdata):
    predictions = sdata["table"].to_df("log1p")
    read = functools.partial(stp.io.read_predictions, sdata, predictions, same_units=True)
    read(training_sections=["S1"])
    protocol = stp.tl.evaluate(sdata, "external").protocol
    assert (protocol.leaking_sections, protocol.leaking_patients) == (("S1",), ("A",))
    read(training_sections=["S2"])
    protocol = stp.tl.evaluate(sdata, "external").protocol
    assert (protocol.leaking_sections, protocol.leaking_patients) == (("S2",), ())


def test_averages_and_finetuned_models_keep_all_patients(sdata):
    models = {name: fitted(sdata, name) for name in ("S1", "S2")}
    assert stp.models.average(models).training.donors == {"patient": ("A", "B")}


def test_spots_with_few_counts_are_reported_and_scored(sdata):
    new = only(sdata, ["S3"])
    stp.tl.predict(new, fitted(sdata, "S2"))
    assert "fewer than" not in str(stp.tl.evaluate(new).protocol)
    n_obs, counts = new["table"].n_obs, np.asarray(new["table"].X.toarray())
    counts[:3] = 0
    new["table"].X = counts
    scores = stp.tl.evaluate(new)
    assert f"3 of {n_obs} scored spots have fewer than 100 counts" in str(scores.protocol)
    assert scores.protocol.n_spots == n_obs
    stp.pp.filter_spots(new)
    filtered = stp.tl.evaluate(new).protocol
    assert "fewer than" not in str(filtered)
    assert filtered.n_spots == n_obs - 3


def test_the_threshold_that_was_used_is_the_one_reported(sdata):
    new = only(sdata, ["S3"])
    stp.tl.predict(new, fitted(sdata, "S2"))
    total = np.asarray(new["table"].X.sum(axis=1)).ravel()
    stp.pp.filter_spots(new, min_counts=0)
    assert "fewer than" not in str(stp.tl.evaluate(new).protocol)
    least = float(np.sort(total)[4])
    new["table"].uns["stpredict"]["filter_spots"]["min_counts"] = least
    n_few = int((total < least).sum())
    assert f"{n_few} of {len(total)} scored spots" in str(stp.tl.evaluate(new).protocol)
