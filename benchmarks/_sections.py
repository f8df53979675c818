"""Sections of HER2ST for benchmarks, all of one patient, and parts of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import stpredict as stp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model

SECTIONS = ["C2", "C3", "C4", "C5"]
#: Sides of the tiles around each spot, in µm.
FIELDS_UM = [112.0, 224.0, 448.0]
LOCAL = Path(__file__).parents[1].parent / "shared" / "data" / "her2st"


def read_sections(directory: str | Path | None, sections: Sequence[str] = SECTIONS) -> SpatialData:
    """Sections with filtered spots and log counts."""
    sdata = stp.datasets.her2st(list(sections), directory=directory)
    stp.pp.filter_spots(sdata)
    stp.pp.normalize(sdata)
    return sdata


def part(sdata: SpatialData, names: Sequence[str]) -> SpatialData:
    """Some of the sections."""
    elements = [element for name in names for element in (name, f"{name}_image")]
    return sdata.subset(elements, filter_tables=True)


class Task(NamedTuple):
    """A section to measure or predict, and a model of others."""

    training: SpatialData
    new: SpatialData
    model: Model
    trained_on: list[str]


def ridge_of_others(directory: str | Path | None, section: str) -> Task:
    """Ridge regression on SVD factors of the other sections but C5, which is kept for testing."""
    sdata = read_sections(directory)
    stp.pp.embed(sdata, "texture")
    stp.pp.neighbors(sdata)
    trained_on = [name for name in SECTIONS if name not in (section, "C5")]
    training, new = part(sdata, trained_on), part(sdata, [section])
    stp.pp.select_genes(training, n_top_genes=250)
    return Task(training, new, stp.tl.fit_ridge(training, targets="svd"), trained_on)
