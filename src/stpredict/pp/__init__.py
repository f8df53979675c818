"""Preprocessing: from measured sections and images to the inputs of a model."""

from stpredict.pp._balance import balance
from stpredict.pp._embed import embed
from stpredict.pp._filter_spots import filter_spots
from stpredict.pp._grid import grid
from stpredict.pp._neighbors import neighbors
from stpredict.pp._normalize import normalize
from stpredict.pp._prepare import prepare
from stpredict.pp._rank_expression import rank_expression
from stpredict.pp._realign._realign import realign
from stpredict.pp._register_embedding import register_embedding
from stpredict.pp._score_programs import score_programs
from stpredict.pp._select_genes import select_genes
from stpredict.pp._smooth import smooth
from stpredict.pp._stain._normalize_stain import normalize_stain
from stpredict.pp._tissue._detect_tissue import detect_tissue

__all__ = [
    "balance",
    "detect_tissue",
    "embed",
    "filter_spots",
    "grid",
    "neighbors",
    "normalize",
    "normalize_stain",
    "prepare",
    "rank_expression",
    "realign",
    "register_embedding",
    "score_programs",
    "select_genes",
    "smooth",
]


def __dir__() -> list[str]:
    return sorted(__all__)
