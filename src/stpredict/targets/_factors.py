"""What all kinds of factors share: scores, their names and their scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict.targets._base import Targets
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import Saved


@dataclass(frozen=True, eq=False)
class FactorTargets(Targets):
    """Targets whose outputs are scaled scores of factors.

    Attributes
    ----------
    genes
        Scaling of the fit genes; ``genes.scale`` is 0 where a gene takes no part.
    scores
        Centre and scale of the factors in training; scale 0 where a factor has no variance.
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

    def _scores_of(self, outputs: torch.Tensor) -> torch.Tensor:
        """Scores of the factors in their own units, as `factors` gives them, in torch."""
        scale, mean = (outputs.new_tensor(part) for part in (self.scores.scale, self.scores.mean))
        return outputs * scale + mean

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {"scaling": self.scaling, "n_factors": self.n_outputs}, {
            "genes.center": self.genes.mean,
            "genes.scale": self.genes.scale,
            "scores.mean": self.scores.mean,
            "scores.scale": self.scores.scale,
        }

    @classmethod
    def _read_factors(cls, saved: Saved, shared: dict[str, Any]) -> dict[str, Any]:
        """Read the fields of all kinds of factors."""
        n_factors, n_genes = saved.whole("n_factors"), shared["n_fit_genes"]
        return shared | {
            "scaling": saved.scaling(),
            "genes": saved.standard("genes.center", "genes.scale", n_genes),
            "scores": saved.standard("scores.mean", "scores.scale", n_factors),
        }


def check_n_factors(n_factors: int, n_rows: int, constant: NDArray[np.bool_]) -> None:
    """Require no more factors than training rows, and than genes that vary in them."""
    n_varying = int((~constant).sum())
    if n_factors > min(n_rows, n_varying):
        raise ValueError(
            f"n_factors={n_factors} is too many: it may be no more than the training rows "
            f"({n_rows}) and the genes that vary in them ({n_varying})"
        )


def standard_scores(scores: NDArray[np.float64]) -> Standard:
    """Standard scores of factors in training, of (n_rows, n_factors)."""
    standard = Standard.fit(scores)
    # a smaller spread is what rounding leaves of none
    has_spread = standard.scale > 1e-6 * standard.scale.max()
    return Standard(standard.mean, np.where(has_spread, standard.scale, np.float32(0)))


def weighed_scores(scores: NDArray[np.float64], components: NDArray[np.float32]) -> Standard:
    """Scale scores by what they move in the genes, of (n_rows, n_factors).

    An error of a factor then counts as the errors that it makes in the genes: exactly so where
    components (n_factors, n_fit_genes) are orthogonal. Were all factors of one size, a network
    would spend itself on the small ones, which are mostly noise. On average over the factors,
    the variance is 1.
    """
    standard = standard_scores(scores)
    reach = np.linalg.norm(components.astype(np.float64), axis=1)
    common = np.sqrt(np.mean((standard.scale * reach) ** 2))
    takes_part = ~standard.constant & (reach > 0)
    scale = np.where(takes_part, common / np.where(takes_part, reach, 1), 0)
    return Standard(standard.mean, scale.astype(np.float32))
