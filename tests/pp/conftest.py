"""Conditions that every test of a step meets, and sections that those of one module share."""

from __future__ import annotations

import pytest

import stpredict as stp
from stpredict._sdata._elements import copy_of


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No messages, but where a test turns them on to look at them."""
    monkeypatch.setattr(stp.settings, "verbosity", 0)


@pytest.fixture(scope="module")
def pristine(request):
    """What the ``phantom()`` of a test's module makes, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return request.module.phantom()


@pytest.fixture
def sdata(pristine):
    """A copy of it, which a test may change."""
    return copy_of(pristine)
