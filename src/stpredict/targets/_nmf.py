"""Non-negative factors of all genes as targets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from stpredict import _validate
from stpredict.targets._components import ComponentTargets
from stpredict.targets._matrix import Matrix, project, reciprocal
from stpredict.targets._saved import SavedTargets
from stpredict.targets._standard import Standard

# scikit-learn's default. An iteration on 10,000 rows of 20,000 genes takes about a second.
_MAX_ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class Nmf(ComponentTargets):
    """Scores of non-negative components of the genes, which are scaled but not centred."""

    kind: ClassVar[str] = "nmf"
    is_centred: ClassVar[bool] = False
    n_spare: ClassVar[int] = 0

    def factors(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scores of the factors in their own units, at least 0, (n, n_outputs) float32."""
        return np.maximum(super().factors(outputs), 0)

    def _factors(self, outputs: torch.Tensor) -> torch.Tensor:
        return super()._factors(outputs).clamp(min=0)

    @staticmethod
    def _decompose(scaled: Matrix, n_factors: int, seed: int) -> NDArray[np.floating]:
        _validate.counts(scaled, what='values for targets="nmf"')
        nmf = NMF(n_factors, max_iter=_MAX_ITERATIONS, random_state=seed)
        with warnings.catch_warnings():
            # components need no exact convergence
            warnings.simplefilter("ignore", ConvergenceWarning)
            return nmf.fit(scaled).components_

    @staticmethod
    def _scores(
        values: Matrix, genes: Standard, components: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        # min |x - w H| has the solutions of min |r - R w| with R.T R = H H.T and R.T r = H x: one
        # equation per factor instead of one per gene
        _validate.counts(values, what='values for targets="nmf"')
        components = components.astype(np.float64)
        products = project(values, components.T * reciprocal(genes.scale)[:, None])
        eigenvalues, vectors = np.linalg.eigh(components @ components.T)
        # drop directions that linearly dependent components do not span
        is_spanned = eigenvalues > 1e-12 * max(eigenvalues.max(), 1e-300)
        root, vectors = np.sqrt(eigenvalues[is_spanned])[:, None], vectors[:, is_spanned].T
        system, right = root * vectors, (vectors / root) @ products.T
        # rows are solved separately, so that the scores of one do not depend on others
        max_iterations = 100 * len(components)
        return np.array([nnls(system, row, maxiter=max_iterations)[0] for row in right.T])

    @classmethod
    def _read(cls, saved: SavedTargets) -> Self:
        targets = super()._read(saved)
        _validate.counts(targets.components, what="components of the saved targets")
        return targets
