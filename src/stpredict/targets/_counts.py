"""Counts as targets, for losses that are likelihoods of counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

from stpredict import _validate
from stpredict.targets._base import Targets, dense
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import ArrayLike, NDArray

    from stpredict.targets._saved import Saved

#: Counts of a spot in whose unit expression is given, as ``pp.normalize`` does by default.
PER = 1e4
COUNTS_UNITS = f"counts per {PER:,.0f}"

#: Logarithm of a rate, beyond which float32 holds the expected counts no more.
_HIGHEST = float(np.log(np.finfo(np.float32).max / PER)) - 0.01


@dataclass(frozen=True, eq=False)
class Counts(Targets):
    """Counts of the model's genes as they are.

    The network predicts the logarithm of how many times as many counts a gene has as the training
    mean expects of a spot with so many counts in all. Genes come back as expected counts per
    10,000.
    """

    kind: ClassVar[str] = "counts"

    @classmethod
    def fit(cls, values: Any, columns: NDArray[np.int64], *, library: ArrayLike) -> Counts:
        """Fit on counts of training rows, (n_rows, n_fit_genes), and their totals."""
        _check_whole(values)
        totals = _check_library(library, values)
        shares = dense(values[:, columns]) / totals[:, None]
        found = Standard.fit(shares * PER)
        return cls(columns, values.shape[1], found.mean, found.constant)

    @property
    def n_outputs(self) -> int:
        """Number of genes."""
        return len(self.columns)

    def transform(self, values: Any) -> NDArray[np.float32]:
        """Take the counts of the model's genes, (n, n_fit_genes) to (n, n_genes)."""
        values = self._checked(values)
        _check_whole(values)
        return self._model_genes(values)

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Expected counts per 10,000, (n, n_genes)."""
        times = np.exp(np.minimum(self._checked_outputs(outputs), np.float32(_HIGHEST)))
        return self._with_constants(times * self.mean)

    def _gene(self, outputs: torch.Tensor, place: int) -> torch.Tensor:
        return outputs[:, place].clamp(max=_HIGHEST).exp() * float(self.mean[place])

    @property
    def log_share(self) -> NDArray[np.float32]:
        """Logarithm of the share of the counts that each gene has in training, (n_genes,)."""
        share = np.maximum(self.mean / PER, np.finfo(np.float32).tiny)
        return np.asarray(np.log(share), dtype=np.float32)

    def only(self, places: Sequence[int]) -> Counts:
        """Keep some of the genes, by their places; no others are needed to make targets."""
        n, kept = len(places), np.asarray(places, dtype=np.int64)
        return Counts(np.arange(n), n, self.mean[kept], self.constant[kept])

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {}, {}

    @classmethod
    def _read(cls, saved: Saved, shared: dict[str, Any]) -> Counts:
        return cls(**shared)


def _check_whole(values: Any) -> None:
    """Require counts."""
    _validate.counts(values, what="counts")
    found = values.data if sp.issparse(values) else values
    n_broken = int(np.count_nonzero(found != np.rint(found)))
    if n_broken:
        raise ValueError(
            f'targets="counts" need whole numbers, but {n_broken} values are not: losses of '
            "counts take the layer of raw counts, not a normalised one"
        )


def _check_library(library: ArrayLike, values: Any) -> NDArray[np.float64]:
    """Require the total counts of every row."""
    totals = np.asarray(library, dtype=np.float64)
    if totals.shape != (values.shape[0],):
        raise ValueError(
            f"library has the shape {totals.shape}, but one total for each of the "
            f"{values.shape[0]} rows is needed"
        )
    n_empty = int(np.count_nonzero(~(np.isfinite(totals) & (totals > 0))))
    if n_empty:
        raise ValueError(
            f"library must be the total counts of every row, above 0; {n_empty} are not: "
            "drop empty spots with stp.pp.filter_spots"
        )
    found = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    n_small = int(np.count_nonzero(totals < found * (1 - 1e-6)))
    if n_small:
        raise ValueError(
            f"library must be the total counts of every row, but {n_small} are less than the "
            "counts of the row's fit genes"
        )
    return totals
