"""Examples in docstrings start with messages turned on."""

from __future__ import annotations

import doctest

import pytest

import stpredict as stp


@pytest.fixture(autouse=True)
def verbosity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the verbosity after an example that turned messages off."""
    if isinstance(getattr(request.node, "dtest", None), doctest.DocTest):
        monkeypatch.setattr(stp.settings, "verbosity", 1)
