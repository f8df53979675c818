"""Non-negative factors of all genes as targets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.optimize import nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from stpredict import _validate
from stpredict.targets._factors import FactorTargets, check_n_factors, weighed_scores
from stpredict.targets._scaling import describe, divided, inverted, project
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import Saved

#: Iterations at most, scikit-learn's own. On 10,000 rows of 20,000 genes one takes about a second.
_MAX_ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class Nmf(FactorTargets):
    """Scores of non-negative factors of the genes, scaled but not centred.

    Attributes
    ----------
    components
        (n_factors, n_fit_genes) float32, at least 0.
    """

    components: NDArray[np.float32]

    kind: ClassVar[str] = "nmf"

    @classmethod
    def fit(
        cls, values: Any, columns: NDArray[np.int64], *, n_factors: int, scaling: str, seed: int
    ) -> Nmf:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        _validate.counts(values, what='values for targets="nmf"')
        found = describe(values, scaling)
        check_n_factors(n_factors, values.shape[0], found.constant)
        spread = np.where(found.constant, 0, found.scaling.scale)
        genes = Standard(np.zeros_like(found.mean), spread)
        nmf = NMF(n_factors, max_iter=_MAX_ITERATIONS, random_state=seed)
        with warnings.catch_warnings():
            # an approximation like any other
            warnings.simplefilter("ignore", ConvergenceWarning)
            components = nmf.fit(divided(values, spread)).components_.astype(np.float32)
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
        """Scores by non-negative least squares, scaled, (n, n_factors).

        Every row has its own solution, whatever the others are.
        """
        values = self._checked(values)
        _validate.counts(values, what='values for targets="nmf"')
        return self.scores.transform(_scores(values, self.genes, self.components))

    def factors(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scores of the factors in their own units, at least 0, (n, n_outputs) float32."""
        return np.maximum(super().factors(outputs), 0)

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Genes of the model that scores stand for, at least 0, (n, n_genes)."""
        scaled = self.factors(outputs) @ self.components[:, self.columns]
        return self._with_constants(scaled * self.genes.scale[self.columns])

    def _gene(self, outputs: torch.Tensor, place: int) -> torch.Tensor:
        column = self.columns[place]
        factors = self._scores_of(outputs).clamp(min=0)
        scaled = factors @ outputs.new_tensor(self.components[:, column])
        return scaled * float(self.genes.scale[column])

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        config, tensors = super()._state()
        return config, tensors | {"components": self.components}

    @classmethod
    def _read(cls, saved: Saved, shared: dict[str, Any]) -> Nmf:
        fields = cls._read_factors(saved, shared)
        shape = (len(fields["scores"].mean), fields["n_fit_genes"])
        components = saved.array("components", shape)
        _validate.counts(components, what="components of the saved targets")
        return cls(**fields, components=components)


def _scores(values: Any, genes: Standard, components: NDArray[np.float32]) -> NDArray[np.float64]:
    """Non-negative least squares of every row on the components, (n, n_factors).

    ``min |x - w H|`` has the solutions of ``min |r - R w|`` with ``R.T R = H H.T`` and
    ``R.T r = H x``: as many equations as factors, not as many as genes.
    """
    components = components.astype(np.float64)
    seen = project(values, components.T * inverted(genes.scale)[:, None])
    size, vectors = np.linalg.eigh(components @ components.T)
    kept = size > 1e-12 * max(size.max(), 1e-300)
    root = np.sqrt(size[kept])[:, None]
    system, right = root * vectors[:, kept].T, (vectors[:, kept].T / root) @ seen.T
    limit = 100 * len(components)
    return np.array([nnls(system, row, maxiter=limit)[0] for row in right.T])
