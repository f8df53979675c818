"""Differences between methods that were scored on the same folds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_N_BOOTSTRAP = 10_000
#: A t-test of two differences has one degree of freedom, and no power.
_LEAST_FOLDS = 3


@dataclass(frozen=True, eq=False)
class Comparison:
    """How far a method is from another, over the folds that both were scored on.

    Made by :meth:`stpredict.results.CrossValidation.compare`; printed, it is a sentence.

    Attributes
    ----------
    method, reference, metric
        What is compared: ``method - reference``.
    difference
        Mean over genes, then over folds.
    low, high
        Of its 95 % interval, by drawing folds with replacement; NaN of a single fold. Of few
        folds it is too narrow: they cannot tell how much the next one would differ.
    p_value
        Two-sided, by changing the signs of the folds' differences in all ways. Of n folds it is
        at least ``2 / 2 ** n``: .125 of four. NaN of a single fold.
    n_folds, n_genes
        How many.
    genes
        One row per gene, by falling ``difference``: ``difference``, mean over folds, ``n_folds``,
        ``p_value`` of a paired t-test over the folds (NaN of fewer than three), ``q_value``, by
        Benjamini and Hochberg.
    leaky
        Whether the split leaks.
    """

    method: str
    reference: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    n_folds: int
    n_genes: int
    genes: pd.DataFrame = field(repr=False)
    leaky: bool = False

    def __str__(self) -> str:
        ahead = int((self.genes["q_value"] < 0.05).sum())
        differ = "gene differs" if ahead == 1 else "genes differ"
        where = "" if self.genes["q_value"].isna().all() else f"; {ahead} {differ} (FDR 5 %)"
        several = not np.isnan(self.low)
        interval = f" [{self.low:+.3f}, {self.high:+.3f}]" if several else ""
        chance = f" (p = {self.p_value:.2g})" if several else ""
        folds = "folds" if several else "fold"
        return (
            ("LEAKY: " if self.leaky else "")
            + f"{self.method} - {self.reference} = {self.difference:+.3f}{interval} mean "
            f"{self.metric} over {self.n_folds} {folds} and {self.n_genes} genes"
            f"{chance}{where}"
        )


def compare(
    wide: pd.DataFrame, method: str, reference: str, *, metric: str, leaky: bool, seed: int
) -> Comparison:
    """Compare two columns of a table indexed by fold, section and gene."""
    paired = wide.dropna()
    if paired.empty:
        raise ValueError(f"{method} and {reference} have no {metric} of a gene in common")
    difference = paired[method] - paired[reference]
    by_gene = difference.groupby(["fold", "gene"], observed=True).mean()
    # sections of a fold are not independent: each fold counts once
    by_section = difference.groupby(["fold", "section"], observed=True).mean()
    by_fold = by_section.groupby("fold", observed=True).mean().to_numpy()
    low, high = _interval(by_fold, seed)
    return Comparison(
        method=method,
        reference=reference,
        metric=metric,
        difference=float(by_fold.mean()),
        low=low,
        high=high,
        p_value=_signs(by_fold, seed),
        n_folds=len(by_fold),
        n_genes=by_gene.index.get_level_values("gene").nunique(),
        genes=_genes(by_gene.unstack("fold")),
        leaky=leaky,
    )


def _interval(by_fold: NDArray[np.float64], seed: int) -> tuple[float, float]:
    if len(by_fold) < 2:
        return float("nan"), float("nan")
    found = stats.bootstrap(
        (by_fold,), np.mean, n_resamples=_N_BOOTSTRAP, method="percentile", rng=seed
    ).confidence_interval
    return float(found.low), float(found.high)


def _signs(by_fold: NDArray[np.float64], seed: int) -> float:
    if len(by_fold) < 2:
        return float("nan")
    found = stats.permutation_test(
        (by_fold,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_N_BOOTSTRAP,
        rng=seed,
    )
    return float(found.pvalue)


def _genes(by_fold: pd.DataFrame) -> pd.DataFrame:
    """Test every gene over the folds, (n_genes, n_folds)."""
    n_folds = by_fold.notna().sum(axis=1)
    found = pd.DataFrame({"difference": by_fold.mean(axis=1), "n_folds": n_folds})
    values = by_fold.to_numpy()
    spread = np.nanmax(values, axis=1) - np.nanmin(values, axis=1)
    tested = (n_folds >= _LEAST_FOLDS).to_numpy() & (spread > 0)
    p_value = np.where(spread > 0, np.nan, 1.0)
    p_value[n_folds < _LEAST_FOLDS] = np.nan
    if tested.any():
        p_value[tested] = stats.ttest_1samp(values[tested], 0, axis=1, nan_policy="omit").pvalue
    found["p_value"] = p_value
    found["q_value"] = np.nan
    known = found["p_value"].notna()
    if known.any():
        found.loc[known, "q_value"] = stats.false_discovery_control(found.loc[known, "p_value"])
    return found.sort_values("difference", ascending=False, kind="stable")
