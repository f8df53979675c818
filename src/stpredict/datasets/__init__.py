"""Datasets: published sections to download, synthetic sections, and a model to try them with."""

from stpredict.datasets._example_model import example_model
from stpredict.datasets._her2st import her2st
from stpredict.datasets._phantom import phantom

__all__ = ["example_model", "her2st", "phantom"]


def __dir__() -> list[str]:
    return sorted(__all__)
