"""Fitted models: save, load, predict from arrays."""

from __future__ import annotations

from stpredict.models._model import Model
from stpredict.models._save import load

__all__ = ["Model", "load"]
