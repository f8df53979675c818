"""Ridge regression on the embedding of the tile: what every model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of standardised embeddings: from hardly any shrinkage to nearly the training mean.
ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 6, 13))


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression from scaled embeddings to scaled targets.

    Attributes
    ----------
    coefficients
        (n_targets, n_features) float32.
    intercept
        (n_targets,) float32.
    alpha
        Shrinkage, tuned by leaving out one group of the training rows at a time.
    """

    coefficients: NDArray[np.float32]
    intercept: NDArray[np.float32]
    alpha: float

    @classmethod
    def fit(
        cls,
        embeddings: NDArray[np.float32],
        targets: NDArray[np.float32],
        groups: NDArray[np.str_],
    ) -> Ridge:
        """Fit on training rows, (n, d) and (n, g), both scaled; ``groups`` (n,)."""
        search = GridSearchCV(
            SklearnRidge(),
            {"alpha": ALPHAS},
            scoring="neg_mean_squared_error",
            cv=LeaveOneGroupOut().split(embeddings, groups=groups),
        ).fit(embeddings, targets)
        best = search.best_estimator_
        return cls(
            coefficients=np.atleast_2d(best.coef_).astype(np.float32),
            intercept=np.atleast_1d(best.intercept_).astype(np.float32),
            alpha=float(search.best_params_["alpha"]),
        )

    def predict(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict scaled targets, (n, g)."""
        return np.asarray(embeddings @ self.coefficients.T + self.intercept, dtype=np.float32)
