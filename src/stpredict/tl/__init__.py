"""Tools: fit, predict, evaluate."""

from __future__ import annotations

from stpredict.tl._baselines import fit_ridge, fit_trees
from stpredict.tl._deepcell import fit_deepcell
from stpredict.tl._deepspot import fit_deepspot
from stpredict.tl._evaluate import evaluate
from stpredict.tl._finetune import finetune
from stpredict.tl._predict import predict
from stpredict.tl._stacking import fit_stacking

__all__ = [
    "evaluate",
    "finetune",
    "fit_deepcell",
    "fit_deepspot",
    "fit_ridge",
    "fit_stacking",
    "fit_trees",
    "predict",
]
