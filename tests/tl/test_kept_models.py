"""Models of the folds of a cross-validation: kept, stored, and averaged as one model."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace

import numpy as np
import pytest

import stpredict as stp
from helpers import deepspot, factors, ridge
from stpredict._sdata._spot_table import copy_of, open_table

METHODS = {
    "ridge": ridge,
    "factors": factors,
    "deepspot": functools.partial(deepspot, device="cpu"),
}


@pytest.fixture(scope="module")
def run(colour_sections, tmp_path_factory):
    """Sections, scores with models, and the folder."""
    sdata, folder = copy_of(colour_sections), tmp_path_factory.mktemp("runs") / "run"
    scores = stp.tl.cross_validate(sdata, METHODS, keep_models=True, folder=folder, device="cpu")
    return sdata, scores, folder


def predict(sdata, section, model):
    spots = open_table(sdata)
    part = spots.subset(spots.section_rows[section]).sdata
    stp.tl.predict(part, model, device="cpu")
    return part["predicted"]


def assert_reproduces(sdata, models):
    table = sdata["out_of_fold"]
    for method, by_fold in models.items():
        for fold, model in by_fold.items():
            rows = np.flatnonzero(table.obs["fold"] == fold)
            expected = table[rows, list(model.genes)].layers[method]
            np.testing.assert_array_equal(np.asarray(predict(sdata, fold, model).X), expected)


def test_kept_models_reproduce_the_out_of_fold_table(run):
    sdata, scores, _ = run
    assert list(scores.models) == ["ridge", "factors", "deepspot", "tuned_ridge"]
    assert all(list(by_fold) == ["S1", "S2", "S3"] for by_fold in scores.models.values())
    for by_fold in scores.models.values():
        for fold, model in by_fold.items():
            assert fold not in model.training.sections
    assert_reproduces(sdata, scores.models)


def test_models_of_blocks_reproduce_the_out_of_fold_table(colour_sections):
    spots = open_table(colour_sections)
    sdata = spots.subset(spots.section_rows["S1"]).sdata
    methods = {"ridge": ridge}
    scores = stp.tl.cross_validate(
        sdata, methods, groups="blocks", n_folds=2, keep_models=True, device="cpu"
    )
    spots, table = open_table(sdata), sdata["out_of_fold"]
    for fold, model in scores.models["ridge"].items():
        rows = np.flatnonzero(table.obs["fold"] == fold)
        part = spots.subset(rows).sdata
        stp.tl.predict(part, model, device="cpu")
        expected = table[rows, list(model.genes)].layers["ridge"]
        np.testing.assert_array_equal(np.asarray(part["predicted"].X), expected)


def test_a_folder_gives_back_the_models_and_refits_those_it_lacks(run, capsys):
    sdata, scores, folder = run
    again, options = copy_of(sdata), {"keep_models": True, "folder": folder, "device": "cpu"}
    stored = stp.tl.cross_validate(again, METHODS, **options)
    assert stored.seconds == scores.seconds  # of the first run
    assert_reproduces(again, stored.models)
    assert stored.models["ridge"]["S2"] is not scores.models["ridge"]["S2"]
    # models that are absent or damaged are fitted again
    (folder / "models" / "fold1_ridge" / "model.safetensors").write_bytes(b"damaged")
    (folder / "models" / "fold0_ridge" / "config.json").write_text("damaged")
    (folder / "models" / "fold0_factors" / "config.json").unlink()
    shutil.rmtree(folder / "models" / "fold2_factors")
    stp.settings.verbosity = 1
    repaired = stp.tl.cross_validate(again, METHODS, **options)
    stp.settings.verbosity = 0
    assert capsys.readouterr().out.count("it is fitted again") == 3
    assert_reproduces(again, repaired.models)
    for name in ("fold0_ridge", "fold0_factors", "fold1_ridge", "fold2_factors"):
        assert stp.models.load(folder / "models" / name).genes
    without = stp.tl.cross_validate(again, METHODS, folder=folder, device="cpu")
    assert without.models == {}


@pytest.mark.parametrize("method", list(METHODS))
def test_the_average_predicts_the_mean_of_the_models(run, method, tmp_path):
    sdata, scores, _ = run
    models = scores.models[method]
    average = stp.models.average(models)
    shared = set.intersection(*(set(model.genes) for model in models.values()))
    assert set(average.genes) == shared
    assert average.training.sections == ("S2", "S3", "S1")
    each = [predict(sdata, "S1", model)[:, list(average.genes)].X for model in models.values()]
    predicted = predict(sdata, "S1", average)
    np.testing.assert_allclose(predicted.X, np.mean(each, axis=0), atol=1e-5)
    np.testing.assert_allclose(predicted.layers["std"], np.std(each, axis=0), atol=1e-5)
    average.save(tmp_path / "average")
    loaded = stp.models.load(tmp_path / "average")
    np.testing.assert_array_equal(predict(sdata, "S1", loaded).X, predicted.X)
    assert "stacking" in repr(loaded)


def test_scores_of_an_average_on_its_own_sections_are_marked(run):
    sdata, scores, _ = run
    sdata = copy_of(sdata)
    stp.tl.predict(sdata, stp.models.average(scores.models["ridge"]), device="cpu")
    assert stp.tl.evaluate(sdata).leaky


def test_models_that_differ_in_units_or_share_no_gene_are_not_averaged(run):
    _, scores, _ = run
    one, two, _ = scores.models["ridge"].values()
    with pytest.raises(ValueError, match="at least two models, not 1"):
        stp.models.average({"a": one})
    with pytest.raises(ValueError, match="the same units, but 'b' has 'counts' and 'a'"):
        stp.models.average({"a": one, "b": replace(two, units="counts")})
    renamed = replace(two, genes=tuple(f"other_{gene}" for gene in two.genes))
    with pytest.raises(ValueError, match="share no gene"):
        stp.models.average({"a": one, "b": renamed})
    stack = stp.models.average({"a": one, "b": one})
    few = stp.models.average({"c": two, "d": two})
    if set(one.genes) != set(two.genes):
        with pytest.raises(ValueError, match=r"the stack 'a' predicts .* select genes once"):
            stp.models.average({"a": stack, "b": few})
