"""Factors whose genes are linear combinations of components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict.targets._base import State
from stpredict.targets._factors import FactorTargets, standard_scores
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from typing import Self

    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import SavedTargets


@dataclass(frozen=True, eq=False)
class ComponentTargets(FactorTargets):
    """Factors whose scaled genes are scores times components.

    Attributes
    ----------
    components
        (n_factors, n_fit_genes) float32.
    """

    components: NDArray[np.float32]

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Genes of the model that scores correspond to, (n, n_genes)."""
        scaled = self.factors(outputs) @ self.components[:, self.columns]
        scale, mean = self.genes.scale[self.columns], self.genes.mean[self.columns]
        return self._with_constants(scaled * scale + mean)

    def _gene(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        column = self.columns[index]
        scaled = self._factors(outputs) @ outputs.new_tensor(self.components[:, column])
        return scaled * float(self.genes.scale[column]) + float(self.genes.mean[column])

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
    if the components (n_factors, n_fit_genes) are orthogonal. With standard scores, a network
    would mostly learn the small factors, which are mostly noise. The mean variance of the factors
    is 1.
    """
    standard = standard_scores(scores)
    norms = np.linalg.norm(components.astype(np.float64), axis=1)
    # common factor that makes the mean variance 1
    common = np.sqrt(np.mean((standard.scale * norms) ** 2))
    is_used = ~standard.constant & (norms > 0)
    scale = np.where(is_used, common / np.where(is_used, norms, 1), 0)
    return Standard(standard.mean, scale.astype(np.float32))
