"""Ridge regression on the embedding of the tile: what every model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict.models._tune import tune_ridge
from stpredict.targets import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression from scaled embeddings to genes.

    Attributes
    ----------
    coefficients
        (n_genes, n_features) float32.
    intercept
        (n_genes,) float32.
    alpha
        Shrinkage, tuned by leaving out one group of the training rows at a time.
    """

    coefficients: NDArray[np.float32]
    intercept: NDArray[np.float32]
    alpha: float

    @classmethod
    def fit(
        cls,
        embeddings: NDArray[np.float32],
        genes: NDArray[np.float32],
        groups: NDArray[np.str_],
    ) -> Ridge:
        """Fit on training rows.

        Parameters
        ----------
        embeddings
            (n, d), scaled.
        genes
            (n, n_genes) in their units; alpha is tuned on standardised ones, so that all weigh
            alike.
        groups
            (n,).
        """
        scale = Standard.fit(genes)
        coefficients, intercept, alpha = tune_ridge(embeddings, scale.transform(genes), groups)
        return cls(
            coefficients=(coefficients * scale.scale[:, None]).astype(np.float32),
            intercept=(intercept * scale.scale + scale.mean).astype(np.float32),
            alpha=alpha,
        )

    def predict(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict genes in their units, (n, n_genes)."""
        return np.asarray(embeddings @ self.coefficients.T + self.intercept, dtype=np.float32)
