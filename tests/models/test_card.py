"""The model card and both reprs show the same facts."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from stpredict._sdata._recipe import Recipe
from stpredict._sdata._reference_stain import ReferenceStain
from stpredict._sdata._steps import EmbedStep, NeighborsStep, TilesStep
from stpredict.models import Model
from stpredict.models._card import card
from stpredict.models._records import SampleWeight, TrainingRecord

TRAINING = TrainingRecord(
    sections=("S1", "S2"),
    groups=("P1", "P2"),
    held_out="patient P2",
    n_spots=40,
    n_held_out=21,
    best_epochs=(1,),
    seed=3,
    versions={"stpredict": "1.0", "torch": "2.9"},
)
RECIPE = Recipe(
    layer="log1p",
    embedding="X_uni",
    embed=EmbedStep(encoder="uni", weights_hash="0", tile_um=112.0, mpp=0.5, n_subtiles=3),
    neighbors=NeighborsStep(grid="hexagonal", n_rings=1),
)


def model_of(method="ridge", context="spot_neighbors", **fields):
    parts = {
        "genes": ("ERBB2", "GNAS", "MUC1"),
        "units": "log(1 + counts per 10,000)",
        "recipe": RECIPE,
        "training": TRAINING,
        "history": pd.DataFrame(),
        "network": None,
        "hyperparameters": None,
        "targets": None,
    }
    return Model(method=method, context=context, **{**parts, **fields})


def test_the_repr_is_about_ten_lines():
    assert repr(model_of()).splitlines() == [
        "Model ridge: 3 genes from H&E",
        "  genes: ERBB2, GNAS, MUC1",
        "  units: log(1 + counts per 10,000)",
        "  encoder: uni",
        "  tiles: 112 µm, 3 × 3 sub-tiles",
        "  stain: as scanned",
        "  context: spot_neighbors, neighbours: grid hexagonal, n_rings 1",
        "  sections: S1, S2 (40 spots)",
        "  held out: patient P2 (21 spots), best epoch 1",
        "  calibration: none",
    ]


def test_long_lines_of_the_repr_are_cut():
    model = model_of(training=replace(TRAINING, sections=tuple(f"section {i}" for i in range(99))))
    assert max(len(line) for line in repr(model).splitlines()) == 100
    assert "section 98" in card(model)


def test_the_html_repr_has_all_facts_of_the_card():
    model = model_of(units="a < b")
    html = model._repr_html_()
    for fact in ("3 genes from H&amp;E", "ERBB2", "a &lt; b", "hexagonal", "S1, S2", "torch 2.9"):
        assert fact in html
    assert "a < b" in card(model)


def test_models_on_pixels():
    stain = ReferenceStain(method="macenko")
    recipe = Recipe(layer=None, tiles=TilesStep(tile_um=100.0, tile_px=78, stain=stain))
    text = repr(model_of("multiscale", "spot", recipe=recipe))
    assert "tiles: pixels of 100 µm at 78 px" in text
    assert "normalised to the reference in config.json (macenko)" in text
    assert "neighbours" not in text


def test_stacks_describe_their_bases():
    stack = model_of(
        "stacking", "spot", recipe=Recipe("log1p"), bases={"a": model_of(), "b": model_of()}
    )
    assert "base b: ridge; encoder uni; tiles 112 µm" in repr(stack)
    assert "base a: ridge; encoder uni; tiles 112 µm" in card(stack)


def test_published_weights():
    recipe = Recipe("log1p", embedding="X_uni", embed=EmbedStep("uni"), neighbors=NeighborsStep())
    text = repr(model_of(recipe=recipe, training=replace(TRAINING, sections=())))
    assert "embedding: obsm['X_uni']" in text
    assert "neighbours: not reported" in text
    assert "weights as published" in text


@pytest.mark.parametrize(
    ("sections", "expected"),
    [(("S1", "S2"), "sections: S1, S2 (40 spots)"), ((), "sections: weights as published")],
)
def test_finetuned_models(sections, expected):
    before = replace(TRAINING, sections=sections)
    training = replace(TRAINING, n_spots=9, finetuned_on=("S3",), before=before)
    text = card(model_of(training=training))
    assert expected in text
    assert "finetuned on: S3 (9 spots)" in text


def test_weighted_spots():
    training = replace(TRAINING, sample_weight=SampleWeight("my_weight"))
    assert "spots drawn by: obs['my_weight']" in card(model_of(training=training))
