"""Tools: fit, predict, evaluate."""

from __future__ import annotations

from stpredict.tl._attribute import attribute
from stpredict.tl._baselines import fit_ridge, fit_trees
from stpredict.tl._calibrate import calibrate
from stpredict.tl._cnn import fit_cnn
from stpredict.tl._cross_validate import cross_validate
from stpredict.tl._deepcell import fit_deepcell
from stpredict.tl._deepspot import fit_deepspot
from stpredict.tl._evaluate import evaluate
from stpredict.tl._finetune import finetune
from stpredict.tl._multiscale import fit_multiscale
from stpredict.tl._predict import predict
from stpredict.tl._stacking import fit_stacking
from stpredict.tl._tuned import fit_tuned
from stpredict.training import Augmentation

__all__ = [
    "Augmentation",
    "attribute",
    "calibrate",
    "cross_validate",
    "evaluate",
    "finetune",
    "fit_cnn",
    "fit_deepcell",
    "fit_deepspot",
    "fit_multiscale",
    "fit_ridge",
    "fit_stacking",
    "fit_trees",
    "fit_tuned",
    "predict",
]
