"""High or low expression of each gene as targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from stpredict import _validate
from stpredict.targets._base import State, Targets
from stpredict.targets._matrix import Matrix, dense
from stpredict.targets._saved import SavedTargets

#: Units of the predictions, before those of the layer.
HIGH_UNITS = "probability of high "
#: Probabilities nearer to 0 and 1 have no float32 log odds.
_SMALLEST = 1e-6


@dataclass(frozen=True, eq=False)
class High(Targets):
    """Whether a gene is above a quantile of the training rows.

    The network predicts the logarithm of the odds. The mean of a gene is its share of high rows.
    """

    threshold: NDArray[np.float32]  # (n_genes,), in the units of the layer
    quantile: float  # of the training rows, that the threshold is

    kind: ClassVar[str] = "high"

    @classmethod
    def fit(cls, values: Matrix, columns: NDArray[np.int64], *, quantile: float) -> Self:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        genes = dense(values[:, columns])
        # a measured value, so that rounding does not move rows across the threshold
        threshold = np.quantile(genes, quantile, axis=0, method="lower").astype(np.float32)
        share = (genes > threshold).mean(axis=0, dtype=np.float64).astype(np.float32)
        constant = (share == 0) | (share == 1)
        return cls(columns, values.shape[1], share, constant, threshold, float(quantile))

    def transform(self, values: Matrix) -> NDArray[np.float32]:
        """1 where a gene is high, else 0: (n, n_fit_genes) to (n, n_genes)."""
        return is_high(self._model_genes(self._checked(values)), self.threshold)

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Probability of being high, (n, n_genes)."""
        return self._with_constants(expit(self._checked_outputs(outputs)))

    def _gene(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        return outputs[:, index].sigmoid()

    def subset(self, genes: Sequence[int]) -> Self:
        """Targets for some of the genes, by index; they also become the fit genes."""
        index = np.asarray(genes, dtype=np.int64)
        return replace(
            super().subset(genes),
            columns=np.arange(len(index)),
            n_fit_genes=len(index),
            threshold=self.threshold[index],
        )

    def _state(self) -> State:
        return {"quantile": self.quantile}, {"threshold": self.threshold}

    @classmethod
    def _read(cls, saved: SavedTargets) -> Self:
        shared, quantile = saved.shared(), saved.value("quantile")
        check_quantile(quantile)
        threshold = saved.array("threshold", (len(shared["columns"]),))
        return cls(**shared, threshold=threshold, quantile=float(quantile))


def is_high(values: NDArray[Any], threshold: NDArray[np.floating]) -> NDArray[np.float32]:
    """1 where values, (n, n_genes), are above the threshold of their gene, else 0."""
    # compare at the precision of the threshold, which is a measured value
    return (np.asarray(values, dtype=np.float32) > threshold.astype(np.float32)).astype(np.float32)


def log_odds(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Logarithms of the odds, also of probabilities of 0 and 1, as large finite numbers."""
    clipped = np.clip(np.asarray(probabilities, np.float64), _SMALLEST, 1 - _SMALLEST)
    return logit(clipped).astype(np.float32)


def check_quantile(quantile: object) -> None:
    """Require a quantile above which some training rows are high, and others are not."""
    if not _validate.is_number(quantile) or not 0 < quantile < 1:  # type: ignore[operator]
        raise ValueError(f"quantile must be above 0 and below 1, such as 0.5: {quantile!r}")
