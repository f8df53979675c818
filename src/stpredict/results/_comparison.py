"""Differences between methods that were scored on the same groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_N_BOOTSTRAP = 10_000
_MIN_GROUPS = 3  # a t-test of two differences has one degree of freedom and no power


@dataclass(frozen=True, eq=False)
class Comparison:
    """Difference between two methods, over the groups that both were scored on.

    Made by :meth:`stpredict.results.Scores.compare`; printed, it is one sentence.

    Attributes
    ----------
    method, reference, metric
        Names; the difference is ``method - reference``.
    difference
        Mean over genes, then over groups that both methods were scored on.
    low, high
        95 % bootstrap interval over groups, too narrow for few groups; NaN for a single group.
    p_value
        Two-sided sign-flip permutation test over n groups, at least ``2 / 2 ** n``; NaN for one.
    n_groups, n_genes
        Number of groups and of genes.
    genes
        One row per gene, by falling ``difference``, with ``n_groups``, ``p_value`` of a paired
        t-test over groups (NaN for fewer than three) and ``q_value`` (Benjamini-Hochberg).
    leaky
        Whether a patient or section is both in training and scored.
    """

    method: str
    reference: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    n_groups: int
    n_genes: int
    genes: pd.DataFrame = field(repr=False)
    leaky: bool = False

    def __str__(self) -> str:
        n_different = int((self.genes["q_value"] < 0.05).sum())
        differ = "gene differs" if n_different == 1 else "genes differ"
        tested = not self.genes["q_value"].isna().all()
        genes = f"; {n_different} {differ} (FDR 5 %)" if tested else ""
        several = not np.isnan(self.low)
        interval = f" [{self.low:+.3f}, {self.high:+.3f}]" if several else ""
        chance = f" (p = {self.p_value:.2g})" if several else ""
        groups, leaky = "groups" if several else "group", "LEAKY: " if self.leaky else ""
        return (
            f"{leaky}{self.method} - {self.reference} = {self.difference:+.3f}{interval} mean "
            f"{self.metric} over {self.n_groups} {groups} and {self.n_genes} genes{chance}{genes}"
        )


def compare(
    wide: pd.DataFrame, method: str, reference: str, *, metric: str, leaky: bool, seed: int
) -> Comparison:
    """Compare two columns of a table indexed by group, section and gene."""
    paired = wide.dropna()
    if paired.empty:
        raise ValueError(f"{method!r} and {reference!r} share no gene with a {metric}")
    difference = paired[method] - paired[reference]
    by_gene = difference.groupby(["group", "gene"], observed=True).mean()
    # sections of a group are not independent: each group counts once
    by_section = difference.groupby(["group", "section"], observed=True).mean()
    by_group = by_section.groupby("group", observed=True).mean().to_numpy()
    low, high, p_value = _test(by_group, seed)
    return Comparison(
        method=method,
        reference=reference,
        metric=metric,
        difference=float(by_group.mean()),
        low=low,
        high=high,
        p_value=p_value,
        n_groups=len(by_group),
        n_genes=by_gene.index.get_level_values("gene").nunique(),
        genes=_genes(by_gene.unstack("group")),
        leaky=leaky,
    )


def _test(by_group: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """Bounds of the bootstrap interval, and p of the sign-flip test."""
    if len(by_group) < 2:
        return np.nan, np.nan, np.nan
    options: Any = {"n_resamples": _N_BOOTSTRAP, "vectorized": True, "rng": seed}
    interval = stats.bootstrap((by_group,), np.mean, method="percentile", **options)
    # one sample with permutation_type="samples": the signs are flipped
    test = stats.permutation_test((by_group,), np.mean, permutation_type="samples", **options)
    low, high = interval.confidence_interval
    return float(low), float(high), float(test.pvalue)


def _genes(by_group: pd.DataFrame) -> pd.DataFrame:
    """Test every gene over the groups, (n_genes, n_groups)."""
    n_groups = by_group.notna().sum(axis=1)
    values = by_group.to_numpy()
    spread = np.nanmax(values, axis=1) - np.nanmin(values, axis=1)
    tested = (n_groups >= _MIN_GROUPS).to_numpy() & (spread > 0)
    p_value = np.where(spread > 0, np.nan, 1.0)
    p_value[n_groups < _MIN_GROUPS] = np.nan
    if tested.any():
        p_value[tested] = stats.ttest_1samp(values[tested], 0, axis=1, nan_policy="omit").pvalue
    columns = {"difference": by_group.mean(axis=1), "n_groups": n_groups}
    genes = pd.DataFrame({**columns, "p_value": p_value, "q_value": np.nan})
    p_values = genes["p_value"].dropna()
    if len(p_values):
        genes.loc[p_values.index, "q_value"] = stats.false_discovery_control(p_values)
    return genes.sort_values("difference", ascending=False, kind="stable")
