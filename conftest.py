"""Examples in docstrings start with messages turned on."""

from __future__ import annotations

import pytest

import stpredict as stp


@pytest.fixture(autouse=True)
def verbosity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the verbosity after an example that turned messages off."""
    monkeypatch.setattr(stp.settings, "verbosity", 1)
