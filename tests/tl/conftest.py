"""No messages in tests of the tools, unless a test turns them on; sections of several files."""

from __future__ import annotations

from pathlib import Path

import pytest

import stpredict as stp
from helpers import prepared_phantom


@pytest.fixture(scope="module", autouse=True)
def _silent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        yield


@pytest.fixture(scope="module")
def colour_sections():
    """Three sections without patients, with the colours of tiles as features."""
    design = {"size_px": 800, "n_morphology": 4, "n_neighborhood": 2, "n_null": 2}
    sdata = prepared_phantom(3, design, select={"n_top_genes": 6, "flavor": "variance"})
    del sdata["table"].obs["patient"]
    return sdata


@pytest.fixture(scope="module")
def texture_sections():
    """Two small sections with texture features and four genes."""
    design = {"size_px": 500, "n_morphology": 3, "n_neighborhood": 2, "n_null": 2}
    select = {"n_top_genes": 4, "flavor": "variance"}
    return prepared_phantom(2, design, select=select, encoder="texture")


@pytest.fixture(scope="session")
def her2st_sections():
    """Four sections of one patient, which take seconds to read; copy them before a change."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "her2st"
    if not folder.is_dir():
        pytest.skip("no real data: ../shared/data/her2st")
    return stp.datasets.her2st(["C2", "C3", "C4", "C5"], directory=folder)
