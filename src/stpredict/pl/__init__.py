"""Pictures."""

from __future__ import annotations

from stpredict.pl._attribution import attribution
from stpredict.pl._loss_curve import loss_curve
from stpredict.pl._prediction import prediction
from stpredict.pl._realignment import realignment
from stpredict.pl._stain import stain
from stpredict.pl._tiles import tiles
from stpredict.pl._tissue import tissue

__all__ = ["attribution", "loss_curve", "prediction", "realignment", "stain", "tiles", "tissue"]
