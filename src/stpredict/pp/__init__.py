"""Preprocessing: measured sections and images in, what a model needs out."""

from __future__ import annotations

from stpredict.pp._detect_tissue import detect_tissue
from stpredict.pp._embed import embed
from stpredict.pp._filter import filter_spots
from stpredict.pp._genes import select_genes
from stpredict.pp._grid import grid
from stpredict.pp._neighbors import neighbors
from stpredict.pp._normalize import normalize
from stpredict.pp._prepare import prepare

__all__ = [
    "detect_tissue",
    "embed",
    "filter_spots",
    "grid",
    "neighbors",
    "normalize",
    "prepare",
    "select_genes",
]
