"""Uncertainty of predictions: intervals, reliable genes and familiar tiles."""

from stpredict.uncertainty._calibration import Calibration
from stpredict.uncertainty._conformal import conformal, coverage_by_group, rows_needed
from stpredict.uncertainty._familiarity import Familiarity
from stpredict.uncertainty._intervals import Intervals, coverage
from stpredict.uncertainty._regions import region_means
from stpredict.uncertainty._reliable import Reliability, reliable
from stpredict.uncertainty._section_rule import SectionRule

__all__ = [
    "Calibration",
    "Familiarity",
    "Intervals",
    "Reliability",
    "SectionRule",
    "conformal",
    "coverage",
    "coverage_by_group",
    "region_means",
    "reliable",
    "rows_needed",
]


def __dir__() -> list[str]:
    return sorted(__all__)
