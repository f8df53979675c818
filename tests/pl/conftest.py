"""Fixtures of all tests of pictures."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

import stpredict as stp


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Turn off messages, and close all figures afterwards."""
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    yield
    plt.close("all")
