"""Tools: fit, predict, evaluate."""

from stpredict.models._records import (
    CNNNetwork,
    DeepCellNetwork,
    DeepSpotNetwork,
    MultiScaleNetwork,
)
from stpredict.tl._adapt import adapt
from stpredict.tl._attribute import attribute
from stpredict.tl._audit_donors import audit_donors
from stpredict.tl._audit_layer import audit_layer
from stpredict.tl._calibrate import calibrate
from stpredict.tl._cross_validate import cross_validate
from stpredict.tl._denoise import denoise
from stpredict.tl._evaluate import evaluate
from stpredict.tl._finetune import finetune
from stpredict.tl._fit_cnn import fit_cnn
from stpredict.tl._fit_deepcell import fit_deepcell
from stpredict.tl._fit_deepspot import fit_deepspot
from stpredict.tl._fit_multiscale import fit_multiscale
from stpredict.tl._fit_ridge import fit_ridge
from stpredict.tl._fit_stacking import fit_stacking
from stpredict.tl._fit_trees import fit_trees
from stpredict.tl._fit_tuned import fit_tuned
from stpredict.tl._predict import predict
from stpredict.tl._predict_slide import predict_slide
from stpredict.tl._predict_slides import predict_slides
from stpredict.tl._reliability_by_scale import reliability_by_scale
from stpredict.tl._split_ladder import split_ladder
from stpredict.tl._superresolve import superresolve
from stpredict.training import Augmentation, Schedule

__all__ = [
    "Augmentation",
    "CNNNetwork",
    "DeepCellNetwork",
    "DeepSpotNetwork",
    "MultiScaleNetwork",
    "Schedule",
    "adapt",
    "attribute",
    "audit_donors",
    "audit_layer",
    "calibrate",
    "cross_validate",
    "denoise",
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
    "predict_slide",
    "predict_slides",
    "reliability_by_scale",
    "split_ladder",
    "superresolve",
]


def __dir__() -> list[str]:
    return sorted(__all__)
