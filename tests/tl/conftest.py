"""No messages in tests of the tools, unless a test turns them on; sections of several files."""

from __future__ import annotations

import pytest
import torch

import stpredict as stp


@pytest.fixture(scope="module", autouse=True)
def _silent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        yield


@pytest.fixture(scope="module")
def colour_sections():
    """Three sections without patients, with the colours of tiles as features."""

    def colour(tiles):
        return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)

    sdata = stp.datasets.phantom(
        3, size_px=800, mpp=0.5, pitch_um=40.0, n_morphology=4, n_neighborhood=2, n_null=2
    )
    del sdata["table"].obs["patient"]
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=6, flavor="variance")
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    return sdata


@pytest.fixture(scope="module")
def texture_sections():
    """Two small sections with texture features and four genes."""
    sdata = stp.datasets.phantom(
        2, size_px=500, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=2, n_null=2
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=4, flavor="variance")
    stp.pp.embed(sdata, tile_um=40.0)
    stp.pp.neighbors(sdata)
    return sdata
