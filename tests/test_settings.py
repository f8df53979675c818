"""Settings: only what has an effect is accepted."""

from __future__ import annotations

import pytest

from stpredict._settings import Settings, cache_folder, settings


@pytest.mark.parametrize("value", [3, 2, -1, "1", None, 0.5])
def test_a_verbosity_without_effect_is_refused(value):
    settings = Settings()
    with pytest.raises(ValueError, match=r"settings.verbosity must be 0 .* or 1 .*, not"):
        settings.verbosity = value
    assert settings.verbosity == 1


def test_both_verbosities_are_accepted():
    settings = Settings()
    for value in (0, 1):
        settings.verbosity = value
        assert settings.verbosity == value


def test_the_cache_folder_is_the_setting_else_that_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STPREDICT_CACHE", str(tmp_path / "environment"))
    monkeypatch.setattr(settings, "cache_dir", None)
    assert cache_folder() == tmp_path / "environment"
    for folder in (tmp_path / "own", str(tmp_path / "own")):
        settings.cache_dir = folder
        assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("STPREDICT_CACHE")
    settings.cache_dir = None
    assert cache_folder().name == "stpredict"


def test_a_cache_folder_that_is_no_path_is_refused():
    with pytest.raises(TypeError, match=r"settings.cache_dir must be a path or None, not 3"):
        settings.cache_dir = 3


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="verbose"):
        Settings().verbose = 0
