"""Messages and progress bars."""

from __future__ import annotations

import warnings

import pytest

from stpredict._log import hidden_bars, importing_squidpy, progress_bar
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
