"""Fixtures shared by the tests of preprocessing."""

from __future__ import annotations

import pytest

import stpredict as stp
from stpredict._sdata._spot_table import copy_of


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Silence messages, unless a test turns them on."""
    monkeypatch.setattr(stp.settings, "verbosity", 0)


@pytest.fixture(scope="module")
def pristine(request):
    """Result of the ``phantom()`` of a test's module, computed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return request.module.phantom()


@pytest.fixture
def sdata(pristine):
    """Copy of `pristine`, which a test may change."""
    return copy_of(pristine)
