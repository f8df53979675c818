"""Principal components of all genes as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from sklearn.decomposition import PCA

from stpredict.targets._components import ComponentTargets, weighted_scores
from stpredict.targets._matrix import Matrix, project, reciprocal, scale_columns
from stpredict.targets._scaling import describe_columns
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Svd(ComponentTargets):
    """Scores of the first singular vectors of the scaled, centred genes.

    As in principal component analysis, genes are always centred on their means; the scaling
    determines their scale. The components are orthonormal, and the largest weight of each is
    positive.
    """

    kind: ClassVar[str] = "svd"

    @classmethod
    def fit(
        cls, values: Matrix, columns: NDArray[np.int64], *, n_factors: int, scaling: str, seed: int
    ) -> Svd:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        statistics = describe_columns(values, scaling)
        n_rows, n_varying = values.shape[0], int((~statistics.constant).sum())
        if n_factors >= min(n_rows, n_varying):
            raise ValueError(
                f"n_factors={n_factors} must be less than the number of training rows ({n_rows}) "
                f"and of genes that vary in them ({n_varying})"
            )
        genes = Standard(statistics.mean, statistics.varying_scale)
        # Lanczos' method is exact and centres sparse values without a dense copy
        pca = PCA(n_factors, svd_solver="arpack", random_state=seed)
        pca.fit(scale_columns(values, reciprocal(genes.scale)))
        components = pca.components_.astype(np.float32)
        return cls(
            columns=columns,
            n_fit_genes=values.shape[1],
            mean=statistics.mean[columns],
            constant=statistics.constant[columns],
            genes=genes,
            scores=weighted_scores(_scores(values, genes, components), components),
            scaling=scaling,
            components=components,
        )

    def transform(self, values: Matrix) -> NDArray[np.float32]:
        """Scaled scores of all fit genes, (n, n_fit_genes) to (n, n_factors)."""
        return self.scores.transform(_scores(self._checked(values), self.genes, self.components))


def _scores(
    values: Matrix, genes: Standard, components: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Scores in their own units, (n, n_factors)."""
    weights = components.T * reciprocal(genes.scale)[:, None]
    # subtract the projected mean, so that sparse values are not centred
    return project(values, weights) - genes.mean.astype(np.float64) @ weights
