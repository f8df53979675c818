"""Pictures."""

from stpredict.pl._attribution import attribution
from stpredict.pl._calibration import calibration
from stpredict.pl._folds import folds
from stpredict.pl._gene_scores import gene_scores
from stpredict.pl._loss_curve import loss_curve
from stpredict.pl._metrics import metrics
from stpredict.pl._precision_recall import precision_recall
from stpredict.pl._prediction import prediction
from stpredict.pl._realignment import realignment
from stpredict.pl._scatter import scatter
from stpredict.pl._split_ladder import split_ladder
from stpredict.pl._stain import stain
from stpredict.pl._tiles import tiles
from stpredict.pl._tissue import tissue

__all__ = [
    "attribution",
    "calibration",
    "folds",
    "gene_scores",
    "loss_curve",
    "metrics",
    "precision_recall",
    "prediction",
    "realignment",
    "scatter",
    "split_ladder",
    "stain",
    "tiles",
    "tissue",
]


def __dir__() -> list[str]:
    return sorted(__all__)
