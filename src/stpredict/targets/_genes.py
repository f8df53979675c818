"""Scaled genes as targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from stpredict.targets._base import State, Targets
from stpredict.targets._matrix import Matrix
from stpredict.targets._saved import SavedTargets
from stpredict.targets._scaling import SCALINGS, describe_columns
from stpredict.targets._standard import Standard


@dataclass(frozen=True, eq=False)
class Genes(Targets):
    """The model's genes, scaled separately."""

    standard: Standard
    scaling: str  # name of the scaling

    kind: ClassVar[str] = "genes"

    @classmethod
    def fit(cls, values: Matrix, columns: NDArray[np.int64], *, scaling: str) -> Self:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        genes = describe_columns(values[:, columns], scaling)
        return cls(columns, values.shape[1], genes.mean, genes.constant, genes.scaling, scaling)

    def transform(self, values: Matrix) -> NDArray[np.float32]:
        """Scale the model's genes, (n, n_fit_genes) to (n, n_genes)."""
        return self.standard.transform(self._model_genes(self._checked(values)))

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Convert scaled genes back to their units, (n, n_genes)."""
        return self._with_constants(self.standard.inverse(self._checked_outputs(outputs)))

    def _gene(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        scale, mean = float(self.standard.scale[index]), float(self.standard.mean[index])
        return outputs[:, index] * scale + mean

    def subset(self, genes: Sequence[int]) -> Self:
        """Targets for some of the genes, by index; they also become the fit genes."""
        index = np.asarray(genes, dtype=np.int64)
        standard = Standard(self.standard.mean[index], self.standard.scale[index])
        # no other genes are needed to compute targets
        columns = np.arange(len(index))
        return replace(
            super().subset(genes), columns=columns, n_fit_genes=len(index), standard=standard
        )

    def _state(self) -> State:
        return {"scaling": self.scaling}, {
            "center": self.standard.mean,
            "scale": self.standard.scale,
        }

    @classmethod
    def _read(cls, saved: SavedTargets) -> Self:
        shared = saved.shared()
        standard = saved.standard("center", "scale", len(shared["columns"]))
        return cls(**shared, standard=standard, scaling=saved.one_of("scaling", SCALINGS))
