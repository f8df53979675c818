"""Readers: files of one section in, SpatialData out."""

from __future__ import annotations

from stpredict.io._concat import concat
from stpredict.io._h5ad import read_h5ad
from stpredict.io._hackathon import read_hackathon
from stpredict.io._register import register_um
from stpredict.io._st import read_st
from stpredict.io._visium import read_visium
from stpredict.io._visium_hd import read_visium_hd
from stpredict.io._xenium import read_xenium

__all__ = [
    "concat",
    "read_h5ad",
    "read_hackathon",
    "read_st",
    "read_visium",
    "read_visium_hd",
    "read_xenium",
    "register_um",
]


def __dir__() -> list[str]:
    return sorted(__all__)
