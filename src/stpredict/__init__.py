"""Spatial gene expression from H&E histology, inside scverse."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stpredict import (
        datasets,
        encoders,
        io,
        metrics,
        models,
        nn,
        pl,
        pp,
        report,
        results,
        targets,
        tl,
        uncertainty,
    )
    from stpredict._settings import settings

try:
    __version__ = version("stpredict")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "datasets",
    "encoders",
    "io",
    "metrics",
    "models",
    "nn",
    "pl",
    "pp",
    "report",
    "results",
    "settings",
    "targets",
    "tl",
    "uncertainty",
]


def __getattr__(name: str) -> Any:
    # modules load when first used: torch and squidpy take seconds to import
    if name == "settings":
        return import_module("stpredict._settings").settings
    if name in __all__:
        with warnings.catch_warnings():  # without ipywidgets, tqdm draws bars of text
            warnings.filterwarnings("ignore", "IProgress not found")
            import_module("tqdm.auto")
        return import_module(f"stpredict.{name}")
    raise AttributeError(f"module 'stpredict' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
