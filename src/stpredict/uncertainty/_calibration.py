"""Calibration of a model: intervals, reliable genes and familiarity."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.uncertainty._familiarity import Familiarity
from stpredict.uncertainty._intervals import Intervals, check_shape
from stpredict.uncertainty._reliable import Reliability
from stpredict.uncertainty._section_rule import SectionRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Saved arrays of each part.
_PARTS = {
    "intervals": ("edges", "lower", "upper"),
    "reliability": ("pcc", "pcc_null", "p_adjusted", "rmse_ratio"),
    "familiarity": ("mean", "components", "tiles", "distances"),
}
_RULE = ("section_rule.limit", "section_rule.familiarity", "section_rule.widths")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Uncertainty of a model on held-out groups, as returned by :func:`stpredict.tl.calibrate`.

    Attributes
    ----------
    method, groups
        Name of the method in the cross-validation, and groups that were held out in turn.
    intervals, reliability, familiarity
        Prediction intervals and scores of each gene, and distances between training tiles.
    coverage
        (n_groups, n_genes) float32, coverage of each group by intervals from the errors of the
        other groups. NaN without such intervals.
    section_rule
        Familiarity of a section below which intervals are widened or withheld.

    Raises
    ------
    ValueError
        If the parts have different numbers of genes or groups, or coverage is not in [0, 1].
    """

    method: str
    groups: tuple[str, ...]
    intervals: Intervals
    coverage: NDArray[np.float32]
    reliability: Reliability
    familiarity: Familiarity
    section_rule: SectionRule = field(default_factory=SectionRule)

    def __post_init__(self) -> None:
        n_genes, n_scored = len(self.intervals.edges), len(self.reliability.pcc)
        if n_scored != n_genes:
            raise ValueError(f"reliability has {n_scored} genes, intervals have {n_genes}")
        if len(self.groups) < 2 or len(set(self.groups)) < len(self.groups):
            raise ValueError(f"a calibration needs at least two distinct groups: {self.groups}")
        check_shape("coverage", self.coverage, len(self.groups), n_genes)
        if (self.coverage < 0).any() or (self.coverage > 1).any():
            raise ValueError("coverage must be between 0 and 1")

    def __repr__(self) -> str:
        return (
            f"Calibration of {self.method!r} on {len(self.groups)} held-out groups\n"
            f"    intervals: level {self.level:g}, mean coverage {self.mean_coverage:.2f}\n"
            f"    reliable: {int(self.reliable.sum())} of {len(self.reliable)} genes\n"
            f"    familiarity: {len(self.familiarity.tiles)} training tiles"
        )

    @property
    def level(self) -> float:
        """Nominal coverage of the intervals."""
        return self.intervals.level

    @property
    def reliable(self) -> NDArray[np.bool_]:
        """Genes that beat their nulls and have intervals, (n_genes,)."""
        return self.reliability.reliable & self.intervals.available

    @property
    def coverage_of_groups(self) -> dict[str, float]:
        """Mean coverage of each held-out group over genes; NaN without intervals."""
        rows = self.coverage.astype(np.float64)
        return {name: _nan_mean(row) for name, row in zip(self.groups, rows, strict=True)}

    @property
    def mean_coverage(self) -> float:
        """Mean coverage over groups with intervals."""
        return _nan_mean(np.array(list(self.coverage_of_groups.values())))

    def subset(self, index: NDArray[np.intp]) -> Calibration:
        """Calibration of some genes, in this order."""

        def part(name: str) -> Any:
            whole = getattr(self, name)
            return replace(whole, **{field: getattr(whole, field)[index] for field in _PARTS[name]})

        return replace(
            self,
            intervals=part("intervals"),
            reliability=part("reliability"),
            coverage=self.coverage[:, index],
        )

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Configuration for JSON, and arrays for safetensors, which `from_state` reads."""
        config = {"method": self.method, "level": self.level, "groups": list(self.groups)}
        tensors = {"coverage": self.coverage}
        for part, names in _PARTS.items():
            tensors |= {f"{part}.{name}": getattr(getattr(self, part), name) for name in names}
        rule = self.section_rule
        limit = np.array([rule.limit], dtype=np.float32)
        values = (limit, rule.familiarity, rule.widths)
        tensors |= dict(zip(_RULE, values, strict=True))
        return config, {name: np.ascontiguousarray(array) for name, array in tensors.items()}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
    ) -> Calibration:
        """Calibration from its saved state; ValueError if a part is missing or invalid."""
        for name, kind in (("method", str), ("level", float), ("groups", list)):
            if not isinstance(config.get(name), kind):
                raise ValueError(f"the saved calibration must give {name} as a {kind.__name__}")
        if not all(isinstance(group, str) for group in config["groups"]):
            raise ValueError("the saved calibration must give names of groups as strings")

        def arrays(part: str) -> dict[str, NDArray[np.float32]]:
            return {name: _saved_array(tensors, f"{part}.{name}") for name in _PARTS[part]}

        return cls(
            method=config["method"],
            groups=tuple(config["groups"]),
            intervals=Intervals(config["level"], **arrays("intervals")),
            coverage=_saved_array(tensors, "coverage"),
            reliability=Reliability(**arrays("reliability")),
            familiarity=Familiarity(**arrays("familiarity")),
            section_rule=_saved_rule(tensors),
        )


def _nan_mean(values: NDArray[np.float64]) -> float:
    """Mean without NaN; NaN, without numpy's warning, if nothing remains."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _saved_array(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    if name not in tensors:
        raise ValueError(f"the saved calibration lacks the array {name}")
    if tensors[name].dtype != np.float32:
        raise ValueError(f"{name} of the saved calibration is {tensors[name].dtype}, not float32")
    return tensors[name]


def _saved_rule(tensors: Mapping[str, NDArray[Any]]) -> SectionRule:
    """Rule for unfamiliar sections; the default for models that were saved without one."""
    if not any(name in tensors for name in _RULE):
        return SectionRule()
    limit, familiarity, widths = (_saved_array(tensors, name) for name in _RULE)
    check_shape("limit of the section rule", limit, 1)
    return SectionRule(float(limit[0]), familiarity, widths)
