"""Factors whose genes are linear combinations of components."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from stpredict.targets._base import State
from stpredict.targets._factors import FactorTargets, check_n_factors, standard_scores
from stpredict.targets._matrix import Matrix, reciprocal, scale_columns
from stpredict.targets._saved import SavedTargets
from stpredict.targets._scaling import describe_columns
from stpredict.targets._standard import Standard


@dataclass(frozen=True, eq=False)
class ComponentTargets(FactorTargets):
    """Factors whose scaled genes are scores times components."""

    components: NDArray[np.float32]  # (n_factors, n_fit_genes)

    is_centred: ClassVar[bool]  # whether the mean of each gene is subtracted first
    n_spare: ClassVar[int]  # rows and genes that the solver needs in addition to the factors

    @classmethod
    def fit(
        cls, values: Matrix, columns: NDArray[np.int64], *, n_factors: int, scaling: str, seed: int
    ) -> Self:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        statistics = describe_columns(values, scaling)
        check_n_factors(n_factors, values.shape[0], statistics, spare=cls.n_spare)
        center = statistics.mean if cls.is_centred else np.zeros_like(statistics.mean)
        genes = Standard(center, statistics.varying_scale)
        scaled = scale_columns(values, reciprocal(genes.scale))
        components = cls._decompose(scaled, n_factors, seed).astype(np.float32)
        scores = weighted_scores(cls._scores(values, genes, components), components)
        shared = cls._shared(statistics, columns, scaling)
        return cls(**shared, genes=genes, scores=scores, components=components)

    def transform(self, values: Matrix) -> NDArray[np.float32]:
        """Scaled scores of all fit genes, (n, n_fit_genes) to (n, n_factors)."""
        values = self._checked(values)
        return self.scores.transform(self._scores(values, self.genes, self.components))

    @staticmethod
    @abstractmethod
    def _decompose(scaled: Matrix, n_factors: int, seed: int) -> NDArray[np.floating]:
        """Components of scaled, not centred values, (n_factors, n_fit_genes)."""

    @staticmethod
    @abstractmethod
    def _scores(
        values: Matrix, genes: Standard, components: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Scores in their own units, (n, n_factors)."""

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Genes of the model that scores correspond to, (n, n_genes)."""
        return self._unscaled(self.factors(outputs) @ self.components[:, self.columns])

    def _scaled_gene(self, outputs: torch.Tensor, column: int) -> torch.Tensor:
        return self._factors(outputs) @ outputs.new_tensor(self.components[:, column])

    def _state(self) -> State:
        config, arrays = super()._state()
        return config, arrays | {"components": self.components}

    @classmethod
    def _read(cls, saved: SavedTargets) -> Self:
        fields = cls._read_factors(saved)
        shape = (len(fields["scores"].mean), fields["n_fit_genes"])
        return cls(**fields, components=saved.array("components", shape))


def weighted_scores(scores: NDArray[np.float64], components: NDArray[np.float32]) -> Standard:
    """Scale scores, (n_rows, n_factors), by their effect on the genes.

    An error of a factor then counts as much as the errors that it causes in the genes: exactly so
    if the components (n_factors, n_fit_genes) are orthogonal.
    """
    # with standard scores, a network would mostly learn the small factors, which are mostly noise
    standard = standard_scores(scores)
    norms = np.linalg.norm(components.astype(np.float64), axis=1)
    # common factor that makes the mean variance 1
    common = np.sqrt(np.mean((standard.scale * norms) ** 2))
    is_used = ~standard.constant & (norms > 0)
    scale = np.where(is_used, common / np.where(is_used, norms, 1), 0)
    return Standard(standard.mean, scale.astype(np.float32))
