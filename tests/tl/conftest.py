"""Conditions of every test of the tools: no messages, unless a test turns them on."""

from __future__ import annotations

import pytest

import stpredict as stp


@pytest.fixture(scope="module", autouse=True)
def _silent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        yield
