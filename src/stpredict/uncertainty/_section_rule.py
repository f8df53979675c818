"""When the intervals of a section are widened or withheld, as set by the training sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as student
from sklearn.isotonic import IsotonicRegression

from stpredict import _validate
from stpredict.uncertainty._intervals import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stpredict.uncertainty._intervals import Floats, Intervals

#: Median familiarity below which intervals are withheld, unless the training groups vary more:
#: those of 90 % covered 58 % of such a section of another patient.
_LIMIT = 0.1
#: Fewer groups do not show how much groups vary.
_MIN_GROUPS = 5
#: Share of sections like those of training that the limit is to let pass.
_PASSED = 0.99
#: Medians of 0 and 1 have no logit.
_SMALLEST = 1e-3


def _no_points() -> NDArray[np.float32]:
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class SectionRule:
    """Width of the intervals of a section, by the median familiarity of its tiles.

    Attributes
    ----------
    limit
        Median familiarity below which a section has no intervals.
    familiarity
        (n,) float32, median familiarity of training sections that were left out, and of parts of
        them, ascending. Empty if intervals are never widened.
    widths
        (n,) float32, factors of the widths of their intervals, at least 1 and not ascending.

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite or out of range, or the order is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict.uncertainty import SectionRule
    >>> points = np.array([0.3, 0.5], dtype=np.float32), np.array([1.4, 1.0], dtype=np.float32)
    >>> rule = SectionRule(0.1, *points)
    >>> [round(rule.width(familiarity), 2) for familiarity in (0.6, 0.4, 0.2, 0.05)]
    [1.0, 1.2, 1.4, nan]
    """

    limit: float = _LIMIT
    familiarity: NDArray[np.float32] = field(default_factory=_no_points)
    widths: NDArray[np.float32] = field(default_factory=_no_points)

    def __post_init__(self) -> None:
        check_shape("familiarity of the section rule", self.familiarity, "n")
        check_shape("widths of the section rule", self.widths, len(self.familiarity))
        for name in ("limit", "familiarity", "widths"):
            _validate.finite(np.atleast_1d(getattr(self, name)), what=f"{name} of the section rule")
        if not 0 <= self.limit <= 1:
            raise ValueError(f"limit of the section rule must be between 0 and 1: {self.limit}")
        if (np.diff(self.familiarity) < 0).any() or (np.diff(self.widths) > 0).any():
            raise ValueError("familiarity of the section rule must ascend, and widths descend")
        if (self.widths < 1).any():
            raise ValueError("widths of the section rule must be at least 1")

    @classmethod
    def fit(
        cls, medians: Sequence[float], references: Sequence[tuple[float, float]]
    ) -> SectionRule:
        """Set the rule by the training sections.

        Parameters
        ----------
        medians
            Median familiarity of every training group to the other groups.
        references
            Median familiarity of training sections or parts of them, and the factor by which their
            intervals must be wider to reach their level (`needed_width`). May be empty.

        Returns
        -------
        SectionRule
            The limit is a bound that 99 % of groups like those of training exceed, if their logits
            are normal, but at most 0.1, and 0.1 for fewer than five groups. Widths are an isotonic
            regression of the factors.
        """
        limit = _LIMIT
        if (n := len(medians)) >= _MIN_GROUPS:
            logits = logit(np.clip(medians, _SMALLEST, 1 - _SMALLEST))
            deviation = logits.std(ddof=1) * np.sqrt(1 + 1 / n)
            limit = min(
                _LIMIT, float(expit(logits.mean() - student.ppf(_PASSED, n - 1) * deviation))
            )
        if not references:
            return cls(limit)
        familiarity, widths = np.array(sorted(references)).T
        isotonic = IsotonicRegression(increasing=False, y_min=1.0).fit(familiarity, widths)
        widths = isotonic.predict(familiarity)
        return cls(limit, familiarity.astype(np.float32), widths.astype(np.float32))

    def width(self, median: float) -> float:
        """Factor of the width of the intervals of a section; NaN if they are withheld.

        Parameters
        ----------
        median
            Median familiarity of the tiles of the section.
        """
        if median < self.limit:
            return float("nan")
        if not len(self.familiarity):
            return 1.0
        return float(np.interp(median, self.familiarity, self.widths))


def needed_width(measured: Floats, predicted: Floats, intervals: Intervals) -> float:
    """Smallest factor, at least 1, with which intervals cover their level of the values.

    Parameters
    ----------
    measured, predicted
        (n, n_genes) values and their predictions; NaN for genes that were not predicted.
    intervals
        Intervals of the genes.
    """
    errors = np.asarray(measured, dtype=np.float64) - predicted
    lower, upper = (bound - predicted for bound in intervals.around(predicted))
    tiny = np.finfo(np.float32).tiny
    above = (errors - upper) / np.maximum(np.abs(upper), tiny)
    below = (lower - errors) / np.maximum(np.abs(lower), tiny)
    excess = np.maximum(above, below)
    excess = excess[np.isfinite(excess)]
    if not len(excess):
        return 1.0
    return float(1 + max(0.0, np.quantile(excess, intervals.level, method="higher")))
