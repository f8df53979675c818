"""Counts as targets, for losses that are likelihoods of counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike, NDArray

from stpredict import _validate
from stpredict.targets._base import State, Targets
from stpredict.targets._matrix import Matrix, dense
from stpredict.targets._saved import SavedTargets
from stpredict.targets._standard import Standard

#: Total counts to which expression is normalised, the default of ``pp.normalize``.
TARGET_SUM = 1e4
COUNTS_UNITS = f"counts per {TARGET_SUM:,.0f}"
#: Units of models that learn raw counts like any other layer.
RAW_COUNTS_UNITS = "counts"

# Largest log-rate for which the expected counts are finite in float32.
_MAX_LOG_RATE = float(np.log(np.finfo(np.float32).max / TARGET_SUM)) - 0.01


@dataclass(frozen=True, eq=False)
class Counts(Targets):
    """Counts of the model's genes.

    The network predicts the logarithm of the ratio between a gene's expected counts and those
    expected from the training mean for a spot of the same total.
    """

    kind: ClassVar[str] = "counts"

    @classmethod
    def fit(cls, values: Matrix, columns: NDArray[np.int64], *, library: ArrayLike) -> Self:
        """Fit on counts of training rows, (n_rows, n_fit_genes), and their totals."""
        _check_counts(values)
        totals = _check_library(library, values)
        # mean and constancy of the shares are needed, not their scale
        shares = Standard.fit(dense(values[:, columns]) / totals[:, None] * TARGET_SUM)
        return cls(columns, values.shape[1], shares.mean, shares.constant)

    def transform(self, values: Matrix) -> NDArray[np.float32]:
        """Select the counts of the model's genes, (n, n_fit_genes) to (n, n_genes)."""
        values = self._checked(values)
        _check_counts(values)
        return self._model_genes(values)

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Expected counts per 10,000, (n, n_genes)."""
        ratio = np.exp(np.minimum(self._checked_outputs(outputs), np.float32(_MAX_LOG_RATE)))
        return self._with_constants(ratio * self.mean)

    def _gene(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        return outputs[:, index].clamp(max=_MAX_LOG_RATE).exp() * float(self.mean[index])

    @property
    def log_share(self) -> NDArray[np.float32]:
        """Logarithm of each gene's share of the counts in training, (n_genes,)."""
        # a gene without counts in training would be -inf
        share = np.maximum(self.mean / TARGET_SUM, np.finfo(np.float32).tiny)
        return np.asarray(np.log(share), dtype=np.float32)

    def subset(self, genes: Sequence[int]) -> Self:
        """Targets for some of the genes, by index; they also become the fit genes."""
        return replace(super().subset(genes), columns=np.arange(len(genes)), n_fit_genes=len(genes))

    def _state(self) -> State:
        return {}, {}

    @classmethod
    def _read(cls, saved: SavedTargets) -> Self:
        return cls(**saved.shared())


def _check_counts(values: Matrix) -> None:
    """Require whole numbers of at least 0."""
    _validate.counts(values, what="counts")
    stored = values.data if sp.issparse(values) else values
    n_fractions = int(np.count_nonzero(stored != np.rint(stored)))
    if n_fractions:
        problem = f"need whole numbers, but {n_fractions} values are not"
        raise ValueError(f'targets="counts" {problem}: use the layer of raw counts')


def _check_library(library: ArrayLike, values: Matrix) -> NDArray[np.float64]:
    """Require the total counts of each row."""
    totals = np.asarray(library, dtype=np.float64)
    if totals.shape != (values.shape[0],):
        needed = f"one total for each of the {values.shape[0]} rows"
        raise ValueError(f"library has shape {totals.shape}, but {needed} is needed")
    n_empty = int(np.count_nonzero(~(np.isfinite(totals) & (totals > 0))))
    if n_empty:
        problem = f"library must be total counts above 0, but {n_empty} are not"
        raise ValueError(f"{problem}: remove empty spots with stp.pp.filter_spots")
    fit_totals = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    # tolerate rounding of totals that were summed in float32
    n_small = int((totals < fit_totals * (1 - 1e-6)).sum())
    if n_small:
        problem = "less than the counts of the row's fit genes"
        raise ValueError(f"library must be the total of each row, but {n_small} are {problem}")
    return totals
