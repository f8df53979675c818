"""Datasets: published sections to download, and synthetic sections with known truth."""

from stpredict.datasets._her2st import her2st
from stpredict.datasets._phantom import phantom

__all__ = ["her2st", "phantom"]


def __dir__() -> list[str]:
    return sorted(__all__)
