"""Principal components of all genes as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.decomposition import PCA

from stpredict.targets._factors import FactorTargets, weighed_scores
from stpredict.targets._scaling import describe, divided, inverted, project
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import Saved


@dataclass(frozen=True, eq=False)
class Svd(FactorTargets):
    """Scores of the first singular vectors of the scaled, centred genes.

    Whatever the scaling, genes are centred on their means, as principal components are; the
    scaling gives the spread.

    Attributes
    ----------
    components
        (n_factors, n_fit_genes) float32, orthonormal; of each, the largest weight is positive.
    """

    components: NDArray[np.float32]

    kind: ClassVar[str] = "svd"

    @classmethod
    def fit(
        cls, values: Any, columns: NDArray[np.int64], *, n_factors: int, scaling: str, seed: int
    ) -> Svd:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        found = describe(values, scaling)
        n_rows, n_varying = values.shape[0], int((~found.constant).sum())
        if n_factors >= min(n_rows, n_varying):
            raise ValueError(
                f"n_factors={n_factors} is too many: it must be less than the training rows "
                f"({n_rows}) and than the genes that vary in them ({n_varying})"
            )
        genes = Standard(found.mean, np.where(found.constant, 0, found.scaling.scale))
        # Lanczos' method centres sparse values without making them dense, and is exact
        pca = PCA(n_factors, svd_solver="arpack", random_state=seed)
        components = pca.fit(divided(values, genes.scale)).components_.astype(np.float32)
        return cls(
            columns=columns,
            n_fit_genes=values.shape[1],
            mean=found.mean[columns],
            constant=found.constant[columns],
            genes=genes,
            scores=weighed_scores(_scores(values, genes, components), components),
            scaling=scaling,
            components=components,
        )

    def transform(self, values: Any) -> NDArray[np.float32]:
        """Scores of all fit genes, scaled, (n, n_fit_genes) to (n, n_factors)."""
        return self.scores.transform(_scores(self._checked(values), self.genes, self.components))

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Genes of the model that scores stand for, (n, n_genes)."""
        scaled = self.factors(outputs) @ self.components[:, self.columns]
        spread, mean = self.genes.scale[self.columns], self.genes.mean[self.columns]
        return self._with_constants(scaled * spread + mean)

    def _gene(self, outputs: torch.Tensor, place: int) -> torch.Tensor:
        column = self.columns[place]
        scaled = self._scores_of(outputs) @ outputs.new_tensor(self.components[:, column])
        return scaled * float(self.genes.scale[column]) + float(self.genes.mean[column])

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        config, tensors = super()._state()
        return config, tensors | {"components": self.components}

    @classmethod
    def _read(cls, saved: Saved, shared: dict[str, Any]) -> Svd:
        fields = cls._read_factors(saved, shared)
        shape = (len(fields["scores"].mean), fields["n_fit_genes"])
        return cls(**fields, components=saved.array("components", shape))


def _scores(values: Any, genes: Standard, components: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores in their own units, (n, n_factors)."""
    weights = components.T * inverted(genes.scale)[:, None]
    return project(values, weights) - genes.mean.astype(np.float64) @ weights
