"""The base of all kinds of factors: names, scores and their scaling."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stpredict.targets._base import State, Targets
from stpredict.targets._saved import SavedTargets
from stpredict.targets._scaling import SCALINGS, ColumnStatistics
from stpredict.targets._standard import Standard


@dataclass(frozen=True, eq=False)
class FactorTargets(Targets):
    """Targets whose outputs are scaled scores of factors."""

    genes: Standard  # scaling of the fit genes, scale 0 for a gene that is not used
    scores: Standard  # scaling of the factors, scale 0 for a factor without variance
    scaling: str  # name of the scaling of the genes

    @staticmethod
    def _shared(
        statistics: ColumnStatistics, columns: NDArray[np.int64], scaling: str
    ) -> dict[str, Any]:
        """Fields that are fitted in the same way for all kinds of factors."""
        mean, constant = statistics.mean[columns], statistics.constant[columns]
        shared = {"columns": columns, "mean": mean, "constant": constant, "scaling": scaling}
        return {**shared, "n_fit_genes": len(statistics.mean)}

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

    def _unscaled(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scaled genes of the model, (n, n_genes), in their units."""
        scale, mean = self.genes.scale[self.columns], self.genes.mean[self.columns]
        return self._with_constants(scaled * scale + mean)

    def _gene(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        column = self.columns[index]
        scale, mean = float(self.genes.scale[column]), float(self.genes.mean[column])
        return self._scaled_gene(outputs, column) * scale + mean

    @abstractmethod
    def _scaled_gene(self, outputs: torch.Tensor, column: int) -> torch.Tensor:
        """One of the scaled fit genes, (n,)."""

    def _state(self) -> State:
        return {"scaling": self.scaling, "n_factors": self.n_outputs}, {
            "genes.center": self.genes.mean,
            "genes.scale": self.genes.scale,
            "scores.mean": self.scores.mean,
            "scores.scale": self.scores.scale,
        }

    @classmethod
    def _read_factors(cls, saved: SavedTargets) -> dict[str, Any]:
        """Read the fields of all kinds of factors."""
        shared, n_factors = saved.shared(), saved.whole_number("n_factors")
        return {
            **shared,
            "scaling": saved.one_of("scaling", SCALINGS),
            "genes": saved.standard("genes.center", "genes.scale", shared["n_fit_genes"]),
            "scores": saved.standard("scores.mean", "scores.scale", n_factors),
        }


def check_n_factors(
    n_factors: int, n_rows: int, statistics: ColumnStatistics, *, spare: int = 0
) -> None:
    """Require at least as many training rows and varying genes as factors, and ``spare`` more."""
    n_varying = int((~statistics.constant).sum())
    most = min(n_rows, n_varying) - spare
    data = f"training rows ({n_rows}) and genes that vary in them ({n_varying})"
    if most < 1:
        raise ValueError(f"n_factors={n_factors} is too many: there are no factors in these {data}")
    if n_factors > most:
        raise ValueError(f"n_factors={n_factors} must be at most {most} with these {data}")


def standard_scores(scores: NDArray[np.float64]) -> Standard:
    """Standard scores of factors in training, from (n_rows, n_factors)."""
    standard = Standard.fit(scores)
    # a much smaller spread than that of the first factor is rounding
    has_spread = standard.scale > 1e-6 * standard.scale.max()
    return Standard(standard.mean, np.where(has_spread, standard.scale, np.float32(0)))
