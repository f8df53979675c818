"""Settings: only what has an effect is accepted."""

from __future__ import annotations

import pytest

from stpredict._settings import Settings


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


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="verbose"):
        Settings().verbose = 0
