"""Readers that return the files of one section as SpatialData, and exports to other tools."""

from stpredict.io._concat import concat
from stpredict.io._read_h5ad import read_h5ad
from stpredict.io._read_hackathon import read_hackathon
from stpredict.io._read_predictions import read_predictions
from stpredict.io._read_slide import read_slide
from stpredict.io._read_st import read_st
from stpredict.io._read_visium import read_visium
from stpredict.io._read_visium_hd import read_visium_hd
from stpredict.io._read_xenium import read_xenium
from stpredict.io._register_um import register_um
from stpredict.io._to_anndata import to_anndata
from stpredict.io._write_geojson import write_geojson

__all__ = [
    "concat",
    "read_h5ad",
    "read_hackathon",
    "read_predictions",
    "read_slide",
    "read_st",
    "read_visium",
    "read_visium_hd",
    "read_xenium",
    "register_um",
    "to_anndata",
    "write_geojson",
]


def __dir__() -> list[str]:
    return sorted(__all__)
