"""Examples in docstrings run with messages turned off."""

from __future__ import annotations

import doctest

import pytest

import stpredict as stp


@pytest.fixture(autouse=True)
def verbosity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn messages off, which an example would have to list as its output."""
    if isinstance(getattr(request.node, "dtest", None), doctest.DocTest):
        monkeypatch.setattr(stp.settings, "verbosity", 0)
