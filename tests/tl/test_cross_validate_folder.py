"""Folders of finished folds: only those of the same data and methods are used again."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import os
import subprocess
import sys
import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch
import xarray as xr
from spatialdata import transformations
from spatialdata.models import Image2DModel

import stpredict as stp
from helpers import deepspot, factors, ridge
from stpredict._describe import describe
from stpredict._sdata._elements import pyramid_of
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.tl._crossval import _fingerprint, _store
from stpredict.tl._crossval._fingerprint import data_fingerprints


@pytest.fixture
def sdata(colour_sections):
    return copy_of(colour_sections)


METHODS = {"ridge": ridge, "factors": factors}


def section_of_row(sdata):
    return open_table(sdata).section_of_row


def out_of_fold(sdata):
    return sdata.tables["out_of_fold"]


def assert_same_scores(scores, expected):
    pd.testing.assert_frame_equal(scores.table, expected.table)


def never(sdata):
    raise AssertionError("was called before the checks were done")


def test_an_interrupted_run_continues(sdata, tmp_path):
    calls = []

    def counted(train):
        calls.append(tuple(open_table(train).section_names))
        if len(calls) == 3 and not (tmp_path / "second").exists():
            raise KeyboardInterrupt
        return ridge(train)

    methods = {"ridge": counted, "factors": factors}
    expected = stp.tl.cross_validate(sdata, METHODS)
    table = out_of_fold(sdata).copy()
    del sdata.tables["out_of_fold"]
    with pytest.raises(KeyboardInterrupt):
        stp.tl.cross_validate(sdata, methods, folder=tmp_path / "run")
    assert "out_of_fold" not in sdata.tables
    (tmp_path / "second").touch()
    scores = stp.tl.cross_validate(sdata, methods, folder=tmp_path / "run")
    assert calls == [("S2", "S3"), ("S1", "S3"), ("S1", "S2"), ("S1", "S2")]
    assert_same_scores(scores, expected)
    assert scores.protocol.folds == expected.protocol.folds
    for layer in ("factors", "tuned_ridge"):
        np.testing.assert_array_equal(out_of_fold(sdata).layers[layer], table.layers[layer])


def test_a_folder_of_another_run_is_refused(sdata, tmp_path):
    stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"run holds .* with other method .ridge.: give another"):
        stp.tl.cross_validate(sdata, {"ridge": factors}, folder=tmp_path / "run")
    calls = []

    def counted(train):
        calls.append(train)
        return factors(train)

    more = {"ridge": never, "factors": counted}
    with pytest.raises(ValueError, match="other method 'ridge'"):
        stp.tl.cross_validate(sdata, more, folder=tmp_path / "run")
    more["ridge"] = ridge  # another method joins what is finished
    assert not stp.tl.cross_validate(sdata, more, folder=tmp_path / "run").failures
    assert len(calls) == 3
    sdata["table"].layers["log1p"] *= 2
    with pytest.raises(ValueError, match=r"with other data: give another folder="):
        stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("something else")
    with pytest.raises(FileExistsError, match="other holds something else"):
        stp.tl.cross_validate(sdata, {"ridge": never}, folder=tmp_path / "other")


def shift(sdata):
    """Move the spots of S1 by 30 µm."""
    shapes = sdata.shapes["S1"]
    shift_um = transformations.Translation([30.0, 0.0], axes=("x", "y"))
    before = transformations.get_transformation(shapes, to_coordinate_system="S1_um")
    after = transformations.Sequence([before, shift_um])
    transformations.set_transformation(shapes, after, to_coordinate_system="S1_um")


def move(sdata):
    sdata.shapes["S1"].geometry = sdata.shapes["S1"].geometry.translate(5.0, 0.0)


def darken(sdata):
    """Change some pixels of one image."""
    pixels = np.asarray(pyramid_of(sdata.images["S1_image"])[0].data).copy()
    pixels[:, 100:140, 100:140] //= 2
    position = transformations.get_transformation(sdata.images["S1_image"], get_all=True)
    del sdata.images["S1_image"]
    sdata.images["S1_image"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), transformations=position
    )


def change(slot, name):
    def change_values(sdata):
        values = getattr(sdata["table"], slot)
        values[name] = values[name] * 2

    return change_values


@pytest.mark.parametrize(
    ("change_data", "message"),
    [
        (shift, r"shapes\['S1'\]"),
        (move, r"shapes\['S1'\]"),
        (darken, r"images\['S1_image'\]"),
        (change("obsm", "X_colour_subtiles"), r"obsm\['X_colour_subtiles'\]"),
        (change("obsp", "spatial_connectivities"), r"obsp\['spatial_connectivities'\]"),
        (change("obs", "weights"), r"obs\['weights'\]"),
        (change("obs", "block"), r"obs\['block'\]"),
    ],
    ids=["position", "shapes", "pixels", "subtiles", "graph", "weights", "groups"],
)
def test_a_folder_is_refused_after_a_change_of_what_methods_read(
    sdata, tmp_path, change_data, message
):
    table = sdata["table"]
    table.obsm["X_colour_subtiles"] = np.stack([table.obsm["X_colour"]] * 4, axis=1)
    table.obs["weights"] = np.arange(1.0, table.n_obs + 1)
    table.obs["block"] = np.arange(table.n_obs) % 3
    stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path / "run")
    assert not stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path / "run").failures
    change_data(sdata)
    with pytest.raises(ValueError, match=rf"run with other data: give another .*{message}"):
        stp.tl.cross_validate(sdata, {"ridge": never}, folder=tmp_path / "run")


class Weighted(torch.nn.Module):
    """A loss with a parameter, and an option that is not one."""

    def __init__(self, weight, power):
        super().__init__()
        self.weight, self.power = torch.nn.Parameter(torch.tensor([weight])), power

    def forward(self, predicted, target):
        return self.weight.detach().sum() * ((predicted - target).abs() ** self.power).mean()


def closing_over(alpha):
    return lambda sdata: ridge(sdata, alpha=alpha)


@pytest.mark.parametrize(
    ("method", "another"),
    [
        (deepspot.func, functools.partial(deepspot.func, loss=Weighted(1.0, 2))),
        (
            functools.partial(deepspot, loss=Weighted(1.0, 2)),
            functools.partial(deepspot, loss=Weighted(2.0, 2)),
        ),
        (
            functools.partial(deepspot, loss=Weighted(1.0, 2)),
            functools.partial(deepspot, loss=Weighted(1.0, 1)),
        ),
        (lambda sdata: ridge(sdata, alpha=1.0), lambda sdata: ridge(sdata, alpha=2.0)),
        (closing_over(1.0), closing_over(2.0)),
        (
            functools.partial(ridge, genes=np.array([f"gene_{i}" for i in range(2000)])),
            functools.partial(ridge, genes=np.array([f"gene_{i % 1500}" for i in range(2000)])),
        ),
        (
            functools.partial(stp.tl.fit_tuned, candidates={"a": ridge, "b": factors}),
            functools.partial(
                stp.tl.fit_tuned, candidates={"a": ridge, "b": functools.partial(factors, seed=1)}
            ),
        ),
    ],
    ids=["loss", "parameter", "attribute", "code", "closure", "array", "nested"],
)
def test_methods_with_other_code_or_arguments_have_other_descriptions(method, another):
    assert describe(method) == describe(copy.deepcopy(method))
    assert describe(method) != describe(another)


def test_a_folder_is_that_of_a_later_session(sdata, tmp_path):
    """Data from a file are the same as those in memory."""
    stp.pp.normalize_stain(sdata, method="reinhard", reference="S1")
    stp.pp.detect_tissue(sdata)
    sdata["table"].obs["site"] = pd.Categorical(section_of_row(sdata))
    expected = data_fingerprints(open_table(sdata))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr
        sdata.write(tmp_path / "sections.zarr")
    assert data_fingerprints(open_table(sd.read_zarr(tmp_path / "sections.zarr"))) == expected
    assert {"images['S1_image']", "images['S1_image_normalized']"} <= expected.keys()


def test_a_method_has_the_same_description_in_another_process():
    code = f"""
import functools, torch
import stpredict as stp
from stpredict._describe import describe
{inspect.getsource(Weighted)}
fit = functools.partial(stp.tl.fit_deepspot, loss=Weighted(1.0, 2), genes={{"b", "a", "c"}})
description = describe(fit)
"""
    here = {"__name__": "__main__"}
    exec(code, here)
    there = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(description)"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here["description"]


def test_a_level_of_a_large_image_is_read_only_if_it_is_small_enough(sdata, monkeypatch):
    """Of a slide, the finest levels are not read."""

    def unread(block):
        raise AssertionError("was read")

    level = da.zeros((3, 6000, 6000), dtype=np.uint8)
    levels = [
        xr.DataArray(level.map_blocks(unread, meta=level._meta)),
        xr.DataArray(level[:, ::2, ::2]),
    ]
    monkeypatch.setattr(_fingerprint, "pyramid_of", lambda element: levels)
    monkeypatch.setattr(_fingerprint, "_MOST_BYTES", 3 * 3000 * 3000)
    assert data_fingerprints(open_table(sdata))["images['S1_image']"]


def test_two_processes_share_a_folder_and_lose_no_method(sdata, tmp_path, monkeypatch):
    """A second process runs while the first one writes its record of the run."""
    folder, calls, dumps = tmp_path / "run", [], json.dumps

    def interrupted(values, **options):
        if "indent" in options and not calls:
            calls.append(values)
            stp.tl.cross_validate(copy_of(sdata), {"factors": factors}, folder=folder)
        return dumps(values, **options)

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", interrupted)
        stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=folder)
    assert len(calls) == 1
    for name in ("ridge", "factors"):
        with pytest.raises(ValueError, match=f"with other method '{name}'"):
            stp.tl.cross_validate(sdata, {name: never}, folder=folder)
    assert_same_scores(
        stp.tl.cross_validate(sdata, METHODS, folder=folder), stp.tl.cross_validate(sdata, METHODS)
    )


def test_files_of_two_writers_never_share_a_temporary_name(tmp_path, monkeypatch):
    names, original = [], _store.replaced

    def replaced(path):
        names.append(path.name)
        if len(names) == 1:  # another process writes the same file at the same time
            _store._claim(tmp_path / "run.json", {"value": 2})
        return original(path)

    monkeypatch.setattr(_store, "replaced", replaced)
    stored = _store._claim(tmp_path / "run.json", {"value": 1})
    assert len(set(names)) == 2
    assert stored == {"value": 2}  # the other process was faster
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert _store._claim(tmp_path / "run.json", {"value": 3}) == stored  # the first one counts


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None], ids=["empty", "header", "cut"])
def test_a_damaged_fold_is_computed_again(sdata, tmp_path, damage):
    expected = stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path)
    file = next(tmp_path.glob("fold1_ridge.npz"))
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    assert_same_scores(stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path), expected)
    np.load(file).close()


def test_a_damaged_record_of_a_run_is_an_error_with_its_name(sdata, tmp_path):
    stp.tl.cross_validate(sdata, {"ridge": ridge}, folder=tmp_path)
    for name in ("method_ridge.json", "run.json"):
        (tmp_path / name).write_text('{"data": ')
        with pytest.raises(ValueError, match=rf"{name} is damaged: delete its folder"):
            stp.tl.cross_validate(sdata, {"ridge": never}, folder=tmp_path)


def test_a_file_is_no_folder(sdata, tmp_path):
    (tmp_path / "run").write_text("something else")
    with pytest.raises(FileExistsError, match="run holds something else"):
        stp.tl.cross_validate(sdata, {"ridge": never}, folder=tmp_path / "run")
