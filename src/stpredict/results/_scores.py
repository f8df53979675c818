"""Tidy scores of predictions, with the protocol by which they were obtained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from stpredict import _validate
from stpredict.results._comparison import Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stpredict.results._protocol import Protocol

COLUMNS = ("method", "section", "group", "gene", "metric", "value")  # of the tidy table
TUNED_RIDGE = "tuned_ridge"  # the baseline that tl.cross_validate fits
#: References that are computed, not fitted; they appear in the column ``method``.
TRAINING_MEAN, NEIGHBOR_MEAN, NOISE_CEILING = "training_mean", "neighbor_mean", "noise_ceiling"
REFERENCES = (TRAINING_MEAN, NEIGHBOR_MEAN, NOISE_CEILING)
PCC_SHUFFLED, PCC_SPATIAL_NULL = "pcc_shuffled", "pcc_spatial_null"  # nulls, in `metric`


@dataclass(frozen=True)
class Failure:
    """A fit that raised: method and fold, the error in one line, and its traceback."""

    method: str
    fold: str
    error: str  # type and message
    traceback: str = field(repr=False)  # as Python prints it


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of predictions, with their nulls, baselines and ceiling.

    Made by :func:`stpredict.tl.evaluate` and :func:`stpredict.tl.cross_validate`.

    Attributes
    ----------
    table
        Columns ``method`` (also the references ``training_mean``, ``neighbor_mean`` and
        ``noise_ceiling``), ``section``, ``group`` (patient or section), ``gene`` (empty for
        metrics of a whole section), ``metric`` (also the nulls ``pcc_shuffled`` and
        ``pcc_spatial_null``, and for ``targets="high"`` those of ``auc`` and
        ``average_precision``) and ``value``.
    methods, baselines
        Names of the methods or tables, in the order given, and of the baselines fitted with them.
    protocol
        How the scores were obtained.
    failures
        Fits that raised.
    programs
        Scores of gene programmes, in which a programme has the place of a gene, for
        ``tl.evaluate(…, gene_sets=…)``.
    seconds
        Time that fitting and predicting took, by method.
    models
        Fitted models by method and fold, for ``cross_validate(keep_models=True)``; else empty.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> scores.summary().loc["ridge", "pcc"] > 0.2
    np.True_
    >>> print(scores.compare("ridge", "training_mean"))
    ridge - training_mean = ... mean pcc over 2 groups and ... genes ...
    """

    table: pd.DataFrame
    methods: tuple[str, ...]
    protocol: Protocol
    baselines: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    programs: Scores | None = None
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if tuple(self.table.columns) != COLUMNS:
            raise ValueError(f"scores must have the columns {', '.join(COLUMNS)}")

    @property
    def leaky(self) -> bool:
        """Whether a patient or a section is both in training and scored."""
        return self.protocol.leaky

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return list(dict.fromkeys(self.table["metric"].astype(str)))

    def values(self, metric: str = "pcc", *, methods: Sequence[str] | None = None) -> pd.DataFrame:
        """One metric, with a column per method.

        Parameters
        ----------
        metric
            Name of a metric.
        methods
            Columns in their order; by default all methods, baselines and references.

        Returns
        -------
        pandas.DataFrame
            Indexed by ``group``, ``section`` and ``gene``; NaN where a method has no value.

        Raises
        ------
        KeyError
            If there is no such metric, or a method does not have it.
        """
        rows = self.table[self.table["metric"] == metric]
        if rows.empty:
            raise KeyError(f"no metric {metric!r}; metrics: {', '.join(self.metrics)}")
        available = self._in_order(rows["method"])
        columns = available if methods is None else list(methods)
        absent = [name for name in columns if name not in available]
        if absent:
            names = ", ".join(available)
            raise KeyError(f"no {metric} of {', '.join(absent)}; methods with it: {names}")
        index = ["group", "section", "gene"]
        rows = rows.astype(dict.fromkeys(index, str))
        wide = rows.pivot(index=index, columns="method", values="value")
        wide.columns = pd.Index(wide.columns.astype(str))
        return wide[columns]

    def summary(self, by: Literal["section", "group"] | None = None) -> pd.DataFrame:
        """Mean of every metric over genes, then over sections.

        One row per method (and section or group), one column per metric, and ``n_sections``.
        """
        keys = ["method"] if by is None else ["method", by]
        columns = list(dict.fromkeys([*keys, "section"]))
        by_section = self.table.groupby([*columns, "metric"], observed=True)["value"].mean()
        means = by_section.groupby([*keys, "metric"], observed=True).mean().unstack("metric")
        means = means[[name for name in self.metrics if name in means]]
        means.columns = pd.Index(means.columns.astype(str))
        means["n_sections"] = self.table.groupby(keys, observed=True)["section"].nunique()
        order = {name: place for place, name in enumerate(self._in_order(self.table["method"]))}
        places = means.index.get_level_values("method").astype(str).map(order)
        means = means.iloc[np.argsort(places, kind="stable")]
        if by is None:
            means.index = pd.Index(means.index.astype(str), name="method")
        return means

    def genes(self, method: str | None = None) -> pd.DataFrame:
        """Scores of single genes for a method (by default the first), mean over sections.

        One row per gene, by falling ``pcc``, and one column per metric.
        """
        name = self.methods[0] if method is None else method
        rows = self.table[(self.table["method"] == name) & (self.table["gene"] != "")]
        if rows.empty:
            available = ", ".join(self._in_order(self.table["method"]))
            raise KeyError(f"no scores of {name!r}; methods: {available}")
        means = rows.groupby(["gene", "metric"], observed=True)["value"].mean().unstack()
        means.columns = pd.Index(means.columns.astype(str))
        means.index = pd.Index(means.index.astype(str), name="gene")
        means = means[[metric for metric in self.metrics if metric in means]]
        return means.sort_values("pcc", ascending=False, kind="stable")

    def compare(
        self, method: str, reference: str = TUNED_RIDGE, *, metric: str = "pcc", seed: int = 0
    ) -> Comparison:
        """Compare a method with another, with a baseline or with a reference.

        Parameters
        ----------
        method, reference
            Names; the difference is ``method - reference``.
        metric, seed
            Name of a metric, and random seed of the bootstrap.

        Returns
        -------
        Comparison
            Difference with its interval, tests and genes; printed, it is one sentence.

        Raises
        ------
        KeyError
            If there is no such method or metric.
        ValueError
            If both names are the same, or the two share no gene.
        """
        if method == reference:
            raise ValueError(f"{method!r} is compared with itself")
        wide = self.values(metric, methods=[method, reference])
        _validate.seed(seed)
        return compare(wide, method, reference, metric=metric, leaky=self.leaky, seed=seed)

    def __repr__(self) -> str:
        columns = ["pcc", PCC_SHUFFLED, PCC_SPATIAL_NULL, "spearman", "rmse"]
        if "average_precision" in self.metrics:  # of high and low
            columns = ["auc", "auc_spatial_null", "average_precision", "rmse"]
        shown = self.summary().filter(items=columns).round(3)
        parts = [str(self.protocol), str(shown)]
        if self.programs is not None:
            parts += ["", *repr(self.programs).splitlines()]
        return "\n".join(parts)

    def _in_order(self, names: pd.Series) -> list[str]:
        """Methods as they were given, then baselines, then references."""
        available = set(names.astype(str))
        order = (*self.methods, *self.baselines, *REFERENCES)
        return [name for name in dict.fromkeys(order) if name in available]
