"""Fitted models: save, load, predict from arrays."""

from stpredict.models._average import average
from stpredict.models._deepspot._from_deepspot import from_deepspot
from stpredict.models._deepspot._released import released
from stpredict.models._deepspotm import from_deepspotm
from stpredict.models._load import load
from stpredict.models._methods import Method
from stpredict.models._model import Model
from stpredict.models._register import register

__all__ = [
    "Method",
    "Model",
    "average",
    "from_deepspot",
    "from_deepspotm",
    "load",
    "register",
    "released",
]


def __dir__() -> list[str]:
    return sorted(__all__)
