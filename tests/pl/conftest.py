"""Conditions that every test of a picture meets."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

import stpredict as stp


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No messages, but where a test turns them on to look at them."""
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    yield
    plt.close("all")
