"""What a model knows of its own errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.uncertainty._familiarity import Familiarity
from stpredict.uncertainty._intervals import Intervals
from stpredict.uncertainty._reliable import Reliability

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Arrays that are saved of each part.
_PARTS = {
    "intervals": ("edges", "lower", "upper"),
    "reliability": ("pcc", "pcc_null", "p_adjusted", "rmse_ratio"),
    "familiarity": ("mean", "components", "tiles", "distances"),
}


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a model knows of its own errors, learnt on groups that were left out.

    Made by :func:`stpredict.tl.calibrate`; genes are the model's, in order.

    Attributes
    ----------
    method
        Name of the method in the cross-validation whose errors were taken.
    groups
        Groups that were left out in turn.
    intervals
        What is added to predictions, and the level.
    coverage
        (n_groups, n_genes) float32, share of the measured values of each group that intervals held
        which were made of the errors of the other groups. NaN where there are none.
    reliability
        Scores on the groups left out, beside their nulls.
    familiarity
        Distances between training tiles of different groups.

    Raises
    ------
    ValueError
        If the parts are of different numbers of genes or groups, or coverage is no share.
    """

    method: str
    groups: tuple[str, ...]
    intervals: Intervals
    coverage: NDArray[np.float32]
    reliability: Reliability
    familiarity: Familiarity

    def __post_init__(self) -> None:
        n_genes = len(self.intervals.edges)
        if len(self.reliability.pcc) != n_genes:
            raise ValueError(
                f"the reliability is of {len(self.reliability.pcc)} genes, intervals are of "
                f"{n_genes}"
            )
        if len(self.groups) < 2 or len(set(self.groups)) < len(self.groups):
            raise ValueError(f"a calibration is made on at least two groups: {self.groups}")
        if self.coverage.shape != (len(self.groups), n_genes):
            raise ValueError(
                f"coverage must be ({len(self.groups)}, {n_genes}), not {self.coverage.shape}"
            )
        known = self.coverage[~np.isnan(self.coverage)]
        if (known < 0).any() or (known > 1).any():
            raise ValueError("coverage must lie between 0 and 1")

    @property
    def level(self) -> float:
        """Share of the measured values that intervals are to hold."""
        return self.intervals.level

    @property
    def reliable(self) -> NDArray[np.bool_]:
        """Genes that beat their nulls and have intervals, (n_genes,)."""
        return self.reliability.reliable & self.intervals.known

    @property
    def coverage_of_groups(self) -> dict[str, float]:
        """Coverage of each group left out, mean over its genes; NaN where it has none."""
        return {
            name: float(row[~np.isnan(row)].mean()) if (~np.isnan(row)).any() else float("nan")
            for name, row in zip(self.groups, self.coverage.astype(np.float64), strict=True)
        }

    @property
    def mean_coverage(self) -> float:
        """Mean of the coverage over groups that have any."""
        known = [value for value in self.coverage_of_groups.values() if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give what `from_state` makes the same calibration of.

        Returns
        -------
        A configuration for JSON, and arrays for safetensors.
        """
        config = {"method": self.method, "level": self.level, "groups": list(self.groups)}
        tensors = {"coverage": self.coverage}
        for part, names in _PARTS.items():
            tensors |= {f"{part}.{name}": getattr(getattr(self, part), name) for name in names}
        return config, {name: np.ascontiguousarray(array) for name, array in tensors.items()}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
    ) -> Calibration:
        """Make a calibration of what was saved.

        Parameters
        ----------
        config, tensors
            As `state` gave them.

        Returns
        -------
        Calibration

        Raises
        ------
        ValueError
            If a part is missing, of another type or shape.
        """
        for name, kind in (("method", str), ("level", float), ("groups", list)):
            if not isinstance(config.get(name), kind):
                raise ValueError(f"the saved calibration must give {name} as a {kind.__name__}")
        if not all(isinstance(group, str) for group in config["groups"]):
            raise ValueError("the saved calibration must give the names of groups")

        def arrays(part: str) -> dict[str, NDArray[np.float32]]:
            return {name: _array(tensors, f"{part}.{name}") for name in _PARTS[part]}

        return cls(
            method=config["method"],
            groups=tuple(config["groups"]),
            intervals=Intervals(config["level"], **arrays("intervals")),
            coverage=_array(tensors, "coverage"),
            reliability=Reliability(**arrays("reliability")),
            familiarity=Familiarity(**arrays("familiarity")),
        )


def _array(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    if name not in tensors:
        raise ValueError(f"the saved calibration lacks the array {name}")
    if tensors[name].dtype != np.float32:
        raise ValueError(f"{name} of the saved calibration is {tensors[name].dtype}, not float32")
    return tensors[name]
