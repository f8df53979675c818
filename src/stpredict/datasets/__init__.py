"""Datasets: real sections to download, and a synthetic phantom with planted truth."""

from __future__ import annotations

from stpredict.datasets._her2st import her2st
from stpredict.datasets._phantom import phantom

__all__ = ["her2st", "phantom"]


def __dir__() -> list[str]:
    return sorted(__all__)
