"""The loss curve of a fitted model."""

from __future__ import annotations

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import stpredict as stp


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture(scope="module")
def model():
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(
        2,
        size_px=(700, 1100),
        mpp=0.5,
        pitch_um=40.0,
        n_morphology=4,
        n_neighborhood=2,
        n_null=2,
    )
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        context="spot_neighbors",
        genes=["morphology_001", "null_001"],
        network=stp.tl.DeepSpotNetwork(n_hidden=16, n_phi=2, n_rho=2, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=12, batch_size=16, learning_rate=5e-3),
    )
    stp.settings.verbosity = verbosity
    return model


def test_every_step_and_every_validation_is_drawn(model):
    ax = stp.pl.loss_curve(model)
    history = model.history
    training = history[history["split"] == "training"]
    validation = history[history["split"] == "validation"]
    steps, smooth, held_out = ax.lines[:3]
    np.testing.assert_array_equal(steps.get_ydata(), training["loss"])
    np.testing.assert_array_equal(held_out.get_ydata(), validation["loss"])
    assert steps.get_alpha() < 0.5
    assert np.std(smooth.get_ydata()) < np.std(steps.get_ydata())
    # validation is drawn at the end of its epoch
    np.testing.assert_allclose(held_out.get_xdata(), validation["epoch"])
    assert steps.get_xdata().max() == held_out.get_xdata().max()


def test_the_selected_epoch_is_marked(model):
    ax = stp.pl.loss_curve(model)
    (best,) = model.training.best_epochs
    validation = model.history[model.history["split"] == "validation"]
    loss = validation.loc[validation["epoch"] == best, "loss"].item()
    mark = ax.lines[-1]
    assert list(mark.get_xdata()) == [best]
    assert list(mark.get_ydata()) == [loss]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert f"selected by pearson: epoch {best}, loss {loss:.3f}" in labels
    assert any(model.training.held_out in label for label in labels)
    # the record, the repr and the card count as the plot
    assert f"best epoch {best}" in repr(model)
    assert f"best epoch {best}<" in model._repr_html_()
    assert model.history["epoch"].min() == 1


def test_axes_are_labelled(model):
    ax = stp.pl.loss_curve(model)
    assert ax.get_xlabel() == "epoch"
    assert "mse" in ax.get_ylabel()
    assert model.units in ax.get_ylabel()


def test_a_model_without_history_is_refused(model):
    bare = dataclasses.replace(model, history=model.history.iloc[:0])
    with pytest.raises(ValueError, match=r"\(deepspot\) has no history"):
        stp.pl.loss_curve(bare)
    assert not plt.get_fignums()


def test_axes_of_the_caller_are_used(model):
    _, ax = plt.subplots()
    assert stp.pl.loss_curve(model, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_a_loaded_model_gives_the_same_picture(model, tmp_path):
    model.save(tmp_path / "model")
    before = stp.pl.loss_curve(model)
    after = stp.pl.loss_curve(stp.models.load(tmp_path / "model"))
    for old, new in zip(before.lines, after.lines, strict=True):
        np.testing.assert_allclose(old.get_xydata(), new.get_xydata())


def test_the_selected_epochs_of_several_networks_are_marked(model):
    both = pd.concat([model.history, model.history.assign(network=2)], ignore_index=True)
    (best,) = model.training.best_epochs
    training = dataclasses.replace(model.training, best_epochs=(best, 1))
    ax = stp.pl.loss_curve(dataclasses.replace(model, history=both, training=training))
    marked = [line.get_xdata()[0] for line in ax.lines if line.get_markersize() == 8]
    assert marked == [best, 1]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(labels) == 3
    assert f"selected by pearson: epoch 1 to {best}, loss" in labels[-1]
