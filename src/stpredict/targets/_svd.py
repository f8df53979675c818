"""Principal components of all genes as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from stpredict.targets._components import ComponentTargets
from stpredict.targets._matrix import Matrix, project, reciprocal
from stpredict.targets._standard import Standard


@dataclass(frozen=True, eq=False)
class Svd(ComponentTargets):
    """Scores of the first singular vectors of the scaled genes, centred on their means.

    The components are orthonormal, and the largest weight of each is positive.
    """

    kind: ClassVar[str] = "svd"
    is_centred: ClassVar[bool] = True
    n_spare: ClassVar[int] = 1

    @staticmethod
    def _decompose(scaled: Matrix, n_factors: int, seed: int) -> NDArray[np.floating]:
        # Lanczos' method is exact and centres sparse values without a dense copy
        return PCA(n_factors, svd_solver="arpack", random_state=seed).fit(scaled).components_

    @staticmethod
    def _scores(
        values: Matrix, genes: Standard, components: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        weights = components.T * reciprocal(genes.scale)[:, None]
        # subtract the projected mean, so that sparse values are not centred
        return project(values, weights) - genes.mean.astype(np.float64) @ weights
