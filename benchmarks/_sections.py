"""Sections of HER2ST for benchmarks, all of one patient, and parts of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import stpredict as stp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

SECTIONS = ["C2", "C3", "C4", "C5"]
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
