"""Messages and progress bars."""

from __future__ import annotations

import warnings

import pytest

import stpredict as stp
from stpredict._log import hidden_bars, importing_squidpy, progress_bar, writing_quietly
from stpredict._settings import settings


def test_a_bar_shows_its_description(capsys):
    assert list(progress_bar(range(3), description="count")) == [0, 1, 2]
    assert "count: 100%" in capsys.readouterr().err


def test_bars_of_parts_are_hidden_also_after_an_error(capsys):
    with pytest.raises(TypeError, match="integer"), hidden_bars():
        [range(n) for n in progress_bar([1, "2"], description="part")]
    assert capsys.readouterr().err == ""
    list(progress_bar(range(3), description="whole"))
    assert "whole" in capsys.readouterr().err


def test_no_bar_is_shown_at_verbosity_0(capsys, monkeypatch):
    monkeypatch.setattr(settings, "verbosity", 0)
    list(progress_bar(range(3), description="count"))
    assert capsys.readouterr().err == ""


def test_only_warnings_about_docstrings_are_hidden_while_squidpy_is_imported():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with importing_squidpy():
            warnings.warn("'n_jobs' is not a valid key!", SyntaxWarning, stacklevel=1)
            warnings.warn("invalid escape sequence", SyntaxWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["invalid escape sequence"]


def test_no_warning_about_calls_inside_spatialdata_is_shown_while_a_result_is_written(tmp_path):
    sdata = stp.datasets.phantom(1, size_px=300)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with writing_quietly():
            sdata.write(tmp_path / "quiet.zarr")
            warnings.warn("the disk is almost full", UserWarning, stacklevel=1)
    messages = [str(warning.message) for warning in caught]
    assert "the disk is almost full" in messages
    assert not [each for each in messages if "autosharding" in each or "Scaler" in each]


def test_a_cross_validation_has_one_bar_over_all_fits_and_one_over_baselines(capsys):
    def fit(train):
        list(progress_bar(range(3), description="fit"))
        return stp.tl.fit_ridge(train, context="spot", alpha=1.0)

    sdata = stp.datasets.phantom(2, size_px=600)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=5)
    stp.pp.embed(sdata, tile_um=60)
    capsys.readouterr()
    stp.tl.cross_validate(sdata, {"ridge": fit})
    shown = capsys.readouterr().err
    assert "cross-validate: 100%" in shown
    assert "baselines: 100%" in shown
    assert "fit:" not in shown
