"""Targets of a model: genes, factors or counts, fitted on training rows."""

from stpredict.targets._base import Targets
from stpredict.targets._fit import KINDS, fit, from_state
from stpredict.targets._scaling import SCALINGS
from stpredict.targets._standard import Standard

__all__ = ["KINDS", "SCALINGS", "Standard", "Targets", "fit", "from_state"]


def __dir__() -> list[str]:
    return sorted(__all__)
