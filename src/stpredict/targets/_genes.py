"""Genes as targets: scaled, and scaled back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stpredict.targets._base import Targets
from stpredict.targets._scaling import describe
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import Saved


@dataclass(frozen=True, eq=False)
class Genes(Targets):
    """The model's genes, each scaled.

    Attributes
    ----------
    standard
        Centre and spread of the model's genes.
    scaling
        Name of the scaling.
    """

    standard: Standard
    scaling: str

    kind: ClassVar[str] = "genes"

    @classmethod
    def fit(cls, values: Any, columns: NDArray[np.int64], *, scaling: str) -> Genes:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        found = describe(values[:, columns], scaling)
        return cls(columns, values.shape[1], found.mean, found.constant, found.scaling, scaling)

    @property
    def n_outputs(self) -> int:
        """Number of genes."""
        return len(self.columns)

    def transform(self, values: Any) -> NDArray[np.float32]:
        """Scale the model's genes, (n, n_fit_genes) to (n, n_genes)."""
        return self.standard.transform(self._model_genes(self._checked(values)))

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring scaled genes back to their units, (n, n_genes)."""
        return self._with_constants(self.standard.inverse(self._checked_outputs(outputs)))

    def _gene(self, outputs: torch.Tensor, place: int) -> torch.Tensor:
        return outputs[:, place] * float(self.standard.scale[place]) + float(
            self.standard.mean[place]
        )

    def only(self, places: Sequence[int]) -> Genes:
        """Keep some of the genes, by their places; no others are needed to make targets."""
        n, kept = len(places), np.asarray(places, dtype=np.int64)
        return replace(
            self,
            columns=np.arange(n),
            n_fit_genes=n,
            mean=self.mean[kept],
            constant=self.constant[kept],
            standard=Standard(self.standard.mean[kept], self.standard.scale[kept]),
        )

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {"scaling": self.scaling}, {
            "center": self.standard.mean,
            "scale": self.standard.scale,
        }

    @classmethod
    def _read(cls, saved: Saved, shared: dict[str, Any]) -> Genes:
        standard = saved.standard("center", "scale", len(shared["columns"]))
        return cls(**shared, standard=standard, scaling=saved.scaling())
