"""What a cross-validation found: tidy scores, with the protocol that they came about by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from stpredict.results._comparison import Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Columns of the tidy table.
COLUMNS = ("method", "fold", "section", "gene", "metric", "value")
#: What stands beside the methods, in the column ``method``.
TRAINING_MEAN, TUNED_RIDGE = "training_mean", "tuned_ridge"
NEIGHBOR_MEAN, NOISE_CEILING = "neighbor_mean", "noise_ceiling"
NULLS = (TRAINING_MEAN, TUNED_RIDGE, NEIGHBOR_MEAN)
REFERENCES = (*NULLS, NOISE_CEILING)
#: Nulls of each method, in the column ``metric``.
PCC_SHUFFLED, PCC_SPATIAL_NULL = "pcc_shuffled", "pcc_spatial_null"


@dataclass(frozen=True)
class Failure:
    """A method that raised in a fold.

    Attributes
    ----------
    method, fold
        Which.
    error
        Type and message, in one line.
    traceback
        As Python prints it.
    """

    method: str
    fold: str
    error: str
    traceback: str = field(repr=False)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Scores of methods on groups that they were not fitted on.

    Made by :func:`stpredict.tl.cross_validate`.

    Attributes
    ----------
    scores
        One row per method, fold, section, gene and metric: ``method``, ``fold`` (name of the
        groups left out), ``section``, ``gene``, ``metric``, ``value``. ``gene`` is empty for
        metrics of a whole section. Beside the methods, ``method`` names what they are to be read
        by: ``training_mean``, ``tuned_ridge``, ``neighbor_mean``, ``noise_ceiling``. Beside
        ``pcc``, ``metric`` has the nulls of each method: ``pcc_shuffled`` and
        ``pcc_spatial_null``.
    methods
        Names of the methods, in the order given.
    protocol
        How the scores came about, in words; of a split that leaks, its first word is LEAKY.
    leaky
        Whether a group stands on both sides of a split.
    failures
        Methods that raised, and where.
    settings
        ``groups``, ``layer``, ``units``, ``seed``, ``date``, ``versions``, ``n_spots``,
        ``sections`` of each fold, ``seconds`` of each method.

    Examples
    --------
    >>> import stpredict as stp
    >>> result = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})  # doctest: +SKIP
    >>> result.summary()  # doctest: +SKIP
    """

    scores: pd.DataFrame = field(repr=False)
    methods: tuple[str, ...]
    protocol: str
    leaky: bool = False
    failures: tuple[Failure, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if tuple(self.scores.columns) != COLUMNS:
            raise ValueError(
                f"scores must have the columns {', '.join(COLUMNS)}: "
                f"{', '.join(map(str, self.scores.columns))}"
            )

    def values(self, metric: str = "pcc", *, methods: Sequence[str] | None = None) -> pd.DataFrame:
        """One metric, a column per method.

        Parameters
        ----------
        metric
            Name of a metric, such as ``"pcc"``.
        methods
            Which, and in which order; by default all that have it, references last.

        Returns
        -------
        pandas.DataFrame
            Indexed by ``fold``, ``section`` and ``gene``; NaN where a method has no value.

        Raises
        ------
        KeyError
            If there is no such metric, or a method has none of it.
        """
        rows = self.scores[self.scores["metric"] == metric]
        if rows.empty:
            known = ", ".join(dict.fromkeys(self.scores["metric"]))
            raise KeyError(f"there is no metric {metric!r}; metrics: {known}")
        there = self._in_order(rows["method"])
        chosen = there if methods is None else list(methods)
        absent = [name for name in chosen if name not in there]
        if absent:
            raise KeyError(f"no {metric} of {', '.join(absent)}; there is of: {', '.join(there)}")
        wide = rows.astype({"fold": str, "section": str, "gene": str}).pivot(
            index=["fold", "section", "gene"], columns="method", values="value"
        )
        wide.columns = pd.Index(wide.columns.astype(str))
        return wide[chosen]

    def summary(self) -> pd.DataFrame:
        """Mean of every metric over genes, then over sections.

        Returns
        -------
        pandas.DataFrame
            One row per method and reference, one column per metric, ``n_sections`` last.
        """
        by_section = self.scores.groupby(["method", "metric", "section"], observed=True)["value"]
        means = by_section.mean().groupby(["method", "metric"], observed=True).mean().unstack()
        means.columns = pd.Index(means.columns.astype(str))
        means.index = pd.Index(means.index.astype(str), name="method")
        sections = self.scores.groupby("method", observed=True)["section"].nunique()
        metrics = [name for name in dict.fromkeys(self.scores["metric"]) if name in means]
        chosen = means.loc[self._in_order(self.scores["method"]), metrics]
        return chosen.assign(n_sections=sections.rename(str))

    def compare(
        self, method: str, reference: str = TUNED_RIDGE, *, metric: str = "pcc", seed: int = 0
    ) -> Comparison:
        """Compare a method with another, or with what stands beside it.

        Parameters
        ----------
        method, reference
            Names of methods or references; the difference is ``method - reference``.
        metric
            Name of a metric.
        seed
            Of the bootstrap.

        Returns
        -------
        Comparison
            With the interval, tests and genes; printed, it is a sentence.

        Raises
        ------
        KeyError
            If there is no such method or metric.
        ValueError
            If both name the same, or share no gene.
        """
        if method == reference:
            raise ValueError(f"{method!r} is compared with itself")
        wide = self.values(metric, methods=[method, reference])
        return compare(wide, method, reference, metric=metric, leaky=self.leaky, seed=seed)

    def _in_order(self, found: pd.Series) -> list[str]:
        """Methods as they were given, then what they are read by."""
        names = [str(name) for name in found.unique()]
        first = [name for name in self.methods if name in names]
        beside = [name for name in names if name not in self.methods]
        known = {name: number for number, name in enumerate(REFERENCES)}
        # ridge on several embeddings has a name for each
        return first + sorted(beside, key=lambda name: (known.get(name, known[TUNED_RIDGE]), name))
