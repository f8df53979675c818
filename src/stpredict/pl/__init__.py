"""Pictures."""

from __future__ import annotations

from stpredict.pl._loss_curve import loss_curve
from stpredict.pl._prediction import prediction
from stpredict.pl._stain import stain

__all__ = ["loss_curve", "prediction", "stain"]
