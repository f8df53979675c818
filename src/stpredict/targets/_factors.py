"""The base of all kinds of factors: names, scores and their scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict.targets._base import State, Targets
from stpredict.targets._saved import SharedFields
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import SavedTargets


class FactorFields(SharedFields):
    """Fields of all kinds of factors."""

    genes: Standard
    scores: Standard
    scaling: str


@dataclass(frozen=True, eq=False)
class FactorTargets(Targets):
    """Targets whose outputs are scaled scores of factors.

    Attributes
    ----------
    genes
        Scaling of the fit genes; ``genes.scale`` is 0 for a gene that is not used.
    scores
        Centre and scale of the factors in training; scale 0 for a factor without variance.
    scaling
        Name of the scaling of the genes.
    """

    genes: Standard
    scores: Standard
    scaling: str

    @property
    def n_outputs(self) -> int:
        """Number of factors."""
        return len(self.scores.mean)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the factors."""
        return tuple(f"{self.kind}_{i}" for i in range(1, self.n_outputs + 1))

    def factors(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scores of the factors in their own units, (n, n_outputs) float32."""
        return self.scores.inverse(self._checked_outputs(outputs))

    def _factors(self, outputs: torch.Tensor) -> torch.Tensor:
        """Scores of the factors in their own units, as `factors` but in torch."""
        scale, mean = (outputs.new_tensor(part) for part in (self.scores.scale, self.scores.mean))
        return outputs * scale + mean

    def _state(self) -> State:
        return {"scaling": self.scaling, "n_factors": self.n_outputs}, {
            "genes.center": self.genes.mean,
            "genes.scale": self.genes.scale,
            "scores.mean": self.scores.mean,
            "scores.scale": self.scores.scale,
        }

    @classmethod
    def _read_factors(cls, saved: SavedTargets) -> FactorFields:
        """Read the fields of all kinds of factors."""
        shared, n_factors = saved.shared(), saved.whole_number("n_factors")
        return {
            **shared,
            "scaling": saved.scaling(),
            "genes": saved.standard("genes.center", "genes.scale", shared["n_fit_genes"]),
            "scores": saved.standard("scores.mean", "scores.scale", n_factors),
        }


def check_n_factors(n_factors: int, n_rows: int, constant: NDArray[np.bool_]) -> None:
    """Require no more factors than training rows and than varying genes."""
    n_varying = int((~constant).sum())
    if n_factors > min(n_rows, n_varying):
        raise ValueError(
            f"n_factors={n_factors} must be at most the number of training rows ({n_rows}) and of "
            f"genes that vary in them ({n_varying})"
        )


def standard_scores(scores: NDArray[np.float64]) -> Standard:
    """Standard scores of factors in training, from (n_rows, n_factors)."""
    standard = Standard.fit(scores)
    # a much smaller spread than that of the first factor is rounding
    has_spread = standard.scale > 1e-6 * standard.scale.max()
    return Standard(standard.mean, np.where(has_spread, standard.scale, np.float32(0)))
