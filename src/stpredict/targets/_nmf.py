"""Non-negative factors of all genes as targets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.optimize import nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from stpredict import _validate
from stpredict.targets._components import ComponentTargets, weighted_scores
from stpredict.targets._factors import check_n_factors
from stpredict.targets._matrix import Matrix, project, reciprocal, scale_columns
from stpredict.targets._scaling import describe_columns
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from typing import Self

    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import SavedTargets

# scikit-learn's default. An iteration on 10,000 rows of 20,000 genes takes about a second.
_MAX_ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class Nmf(ComponentTargets):
    """Scores of non-negative components of the genes, which are scaled but not centred."""

    kind: ClassVar[str] = "nmf"

    @classmethod
    def fit(
        cls, values: Matrix, columns: NDArray[np.int64], *, n_factors: int, scaling: str, seed: int
    ) -> Nmf:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        _validate.counts(values, what='values for targets="nmf"')
        statistics = describe_columns(values, scaling)
        check_n_factors(n_factors, values.shape[0], statistics.constant)
        genes = Standard(np.zeros_like(statistics.mean), statistics.varying_scale)
        nmf = NMF(n_factors, max_iter=_MAX_ITERATIONS, random_state=seed)
        with warnings.catch_warnings():
            # components need no exact convergence
            warnings.simplefilter("ignore", ConvergenceWarning)
            nmf.fit(scale_columns(values, reciprocal(genes.scale)))
        components = nmf.components_.astype(np.float32)
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
        """Scaled scores by non-negative least squares, (n, n_factors).

        Each row is solved separately, so its scores do not depend on other rows.
        """
        values = self._checked(values)
        _validate.counts(values, what='values for targets="nmf"')
        return self.scores.transform(_scores(values, self.genes, self.components))

    def factors(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scores of the factors in their own units, at least 0, (n, n_outputs) float32."""
        return np.maximum(super().factors(outputs), 0)

    def _factors(self, outputs: torch.Tensor) -> torch.Tensor:
        return super()._factors(outputs).clamp(min=0)

    @classmethod
    def _read(cls, saved: SavedTargets) -> Self:
        targets = super()._read(saved)
        _validate.counts(targets.components, what="components of the saved targets")
        return targets


def _scores(
    values: Matrix, genes: Standard, components: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Non-negative least squares of each row on the components, (n, n_factors).

    ``min |x - w H|`` has the solutions of ``min |r - R w|`` with ``R.T R = H H.T`` and
    ``R.T r = H x``: one equation per factor instead of one per gene.
    """
    components = components.astype(np.float64)
    products = project(values, components.T * reciprocal(genes.scale)[:, None])
    eigenvalues, vectors = np.linalg.eigh(components @ components.T)
    # drop directions that linearly dependent components do not span
    is_spanned = eigenvalues > 1e-12 * max(eigenvalues.max(), 1e-300)
    root, vectors = np.sqrt(eigenvalues[is_spanned])[:, None], vectors[:, is_spanned].T
    system, right = root * vectors, (vectors / root) @ products.T
    max_iterations = 100 * len(components)
    return np.array([nnls(system, row, maxiter=max_iterations)[0] for row in right.T])
