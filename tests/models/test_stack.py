"""Stacks of models on plain arrays: prediction, saving, bases that do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import stpredict as stp
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import EmbedStep
from stpredict.models import Model
from stpredict.models._methods import RIDGE, STACKING
from stpredict.models._records import (
    Hyperparameters,
    RidgeOptions,
    StackNetwork,
    TrainingRecord,
)
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.models._stack import StackInputs, first_base, rank_mean
from stpredict.targets import Standard
from stpredict.targets import fit as fit_targets
from stpredict.training import Inputs

N, D, GENES = 12, 4, ("ERBB2", "GNAS", "MUC1")
TRAINING = TrainingRecord(
    sections=("S1",),
    groups=("S1",),
    held_out="nothing",
    n_spots=20,
    n_held_out=0,
    best_epochs=(),
    seed=0,
    versions={},
)


def targets_of():
    return fit_targets("genes", np.random.default_rng(0).normal(5, 2, (20, 3)), columns=range(3))


def ridge_of(seed):
    torch.manual_seed(seed)
    return Model(
        method="ridge",
        network=RIDGE.build(D, 3, context="spot").eval(),
        genes=GENES,
        context="spot",
        hyperparameters=Hyperparameters(estimator=RidgeOptions(alpha=1.0)),
        recipe=Recipe("log1p", embedding="X_texture", embed=EmbedStep("texture")),
        training=TRAINING,
        units="log1p",
        targets=targets_of(),
        history=pd.DataFrame(columns=list(HISTORY_COLUMNS)),
        inputs=Standard.fit(np.random.default_rng(seed).normal(size=(20, D))),
    )


def stack_of(meta="mean", **bases):
    bases = bases or {"first": ridge_of(1), "a/b": ridge_of(2)}
    n_inputs = 1 if meta == "rank_mean" else len(bases)
    standard, options = targets_of().standard, StackNetwork(meta=meta)
    return Model(
        method="stacking",
        network=STACKING.build(3 * n_inputs, 3, context="spot", options=options).eval(),
        genes=GENES,
        context="spot",
        hyperparameters=Hyperparameters(network=options),
        recipe=Recipe("log1p"),
        training=TRAINING,
        units="log1p",
        targets=targets_of(),
        history=pd.DataFrame(columns=list(HISTORY_COLUMNS)),
        inputs=Standard(np.tile(standard.mean, n_inputs), np.tile(standard.scale, n_inputs)),
        bases=bases,
    )


def inputs_of(stack):
    center = np.random.default_rng(3).normal(size=(N, D)).astype(np.float32)
    bases = {name: Inputs(center, base.inputs) for name, base in stack.bases.items()}
    return StackInputs(stack, bases, np.repeat(["S1", "S2"], N // 2))


def test_stack_predicts_the_mean_of_its_bases_and_their_spread():
    stack = stack_of()
    inputs = inputs_of(stack)
    by_base = [
        base.predict_inputs(inputs.bases[name], device="cpu")[0]
        for name, base in stack.bases.items()
    ]
    predicted, spread = stack.predict_inputs(inputs, device="cpu")
    np.testing.assert_allclose(predicted, np.mean(by_base, axis=0), atol=1e-5)
    np.testing.assert_allclose(spread, np.std(by_base, axis=0), atol=1e-5)
    assert stack.predict_inputs(inputs, spread=False, device="cpu")[1] is None


def test_ranks_are_averaged_within_sections():
    stack = stack_of("rank_mean")
    inputs = inputs_of(stack)
    by_base = np.stack(
        [
            base.predict_inputs(inputs.bases[name], device="cpu")[0]
            for name, base in stack.bases.items()
        ]
    )
    predicted, _ = stack.predict_inputs(inputs, device="cpu")
    np.testing.assert_allclose(predicted, rank_mean(by_base, inputs.sections), atol=1e-5)


def test_first_base_of_a_stack_embeds_its_tiles():
    stack = stack_of()
    assert first_base(stack) is stack.bases["first"]
    assert first_base(stack.bases["first"]) is stack.bases["first"]


def test_saved_stack_is_loaded_with_its_bases(tmp_path):
    stack = stack_of()
    stack.save(tmp_path / "stack")
    config = json.loads((tmp_path / "stack" / "config.json").read_text())
    assert config["bases"] == ["first", "a/b"]
    assert (tmp_path / "stack" / "base_1" / "model.safetensors").is_file()
    loaded = stp.models.load(tmp_path / "stack")
    assert list(loaded.bases) == ["first", "a/b"]
    for each, spread in zip(
        stack.predict_inputs(inputs_of(stack), device="cpu"),
        loaded.predict_inputs(inputs_of(loaded), device="cpu"),
        strict=True,
    ):
        np.testing.assert_array_equal(each, spread)


def test_stack_has_no_embeddings_of_its_own():
    with pytest.raises(ValueError, match=r"model\.bases\[name\]\.predict_array"):
        stack_of().predict_array(np.zeros((2, D)))


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ({"a": ridge_of(1)}, "at least two bases, found 1"),
        ({"a": ridge_of(1), "b": replace(ridge_of(2), units="ranks")}, "base 'b' predicts other"),
        ({"a": replace(ridge_of(1), genes=GENES[::-1]), "b": ridge_of(2)}, "base 'a' predicts"),
    ],
)
def test_bases_that_do_not_fit_are_refused(tmp_path, bases, message):
    stack_of(**bases).save(tmp_path / "stack")
    with pytest.raises(ValueError, match=message):
        stp.models.load(tmp_path / "stack")


def test_wrong_number_of_predictions_is_refused(tmp_path):
    replace(stack_of(), bases={str(i): ridge_of(i) for i in range(3)}).save(tmp_path / "stack")
    with pytest.raises(ValueError, match="takes 6 predictions, its bases make 9"):
        stp.models.load(tmp_path / "stack")


def test_bases_of_other_methods_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a model of ridge has 1 bases, expected 0"):
        replace(ridge_of(1), bases={"a": ridge_of(2)}).save(tmp_path / "ridge")
    assert not (tmp_path / "ridge").exists()


@pytest.mark.parametrize("target", [".", "../other"])
def test_linked_bases_are_refused(tmp_path, target):
    stack_of().save(tmp_path / "stack")
    stack_of().save(tmp_path / "other")
    for number in (0, 1):
        shutil.rmtree(tmp_path / "stack" / f"base_{number}")
        (tmp_path / "stack" / f"base_{number}").symlink_to(target)
    with pytest.raises(ValueError, match="base_0 is a link: replace it by a copy of the model"):
        stp.models.load(tmp_path / "stack")


def test_deeply_nested_stacks_are_refused(tmp_path):
    stack = stack_of()
    for _ in range(6):
        stack = stack_of(first=stack, second=ridge_of(2))
    stack.save(tmp_path / "stack")
    with pytest.raises(ValueError, match="its stacks are more than 5 deep"):
        stp.models.load(tmp_path / "stack")


def test_a_stack_is_replaced_by_one_with_fewer_bases_and_by_another_model(tmp_path):
    three = {name: ridge_of(1) for name in "abc"}
    stack_of(**three).save(tmp_path / "stack")
    (tmp_path / "stack" / "base_2" / "notes.txt").write_text("mine")
    stack_of().save(tmp_path / "stack")
    assert len(stp.models.load(tmp_path / "stack").bases) == 2
    assert [path.name for path in (tmp_path / "stack" / "base_2").iterdir()] == ["notes.txt"]
    ridge_of(1).save(tmp_path / "stack")
    assert stp.models.load(tmp_path / "stack").method == "ridge"
    assert not (tmp_path / "stack" / "base_0").exists()
    assert (tmp_path / "stack" / "base_2" / "notes.txt").exists()


def test_a_base_behind_a_link_is_not_overwritten(tmp_path):
    stack_of().save(tmp_path / "stack")
    ridge_of(5).save(tmp_path / "mine")
    shutil.rmtree(tmp_path / "stack" / "base_0")
    (tmp_path / "stack" / "base_0").symlink_to(tmp_path / "mine")
    before = (tmp_path / "mine" / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="cannot be written: remove what is in its place"):
        stack_of().save(tmp_path / "stack")
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == before


def test_repeated_names_of_bases_are_refused(tmp_path):
    stack_of().save(tmp_path / "stack")
    path = tmp_path / "stack" / "config.json"
    path.write_text(path.read_text().replace('"a/b"', '"first"'))
    with pytest.raises(ValueError, match="bases are not unique, repeated: first"):
        stp.models.load(tmp_path / "stack")
