"""Preprocessing: measured sections and images in, what a model needs out."""

from __future__ import annotations

from stpredict.pp._embed import embed
from stpredict.pp._filter import filter_spots
from stpredict.pp._genes import select_genes
from stpredict.pp._neighbors import neighbors
from stpredict.pp._normalize import normalize
from stpredict.pp._prepare import prepare
from stpredict.pp._stain import normalize_stain

__all__ = [
    "embed",
    "filter_spots",
    "neighbors",
    "normalize",
    "normalize_stain",
    "prepare",
    "select_genes",
]
