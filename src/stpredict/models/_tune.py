"""Ridge regression from sums over rows, in which every alpha and every fold costs hardly more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    #: Coefficients (n_features, n_targets) and intercept (n_targets,).
    Linear = tuple[NDArray[np.float64], NDArray[np.float64]]

#: Of standardised embeddings: from hardly any shrinkage to nearly the training mean.
ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 6, 13))

#: Elements of a block of rows: 32 MB as float64.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Sums:
    """Sums over rows; those of some of the rows, subtracted, leave those of the others.

    Attributes
    ----------
    n
        Number of rows.
    x, y
        (n_features,) and (n_targets,).
    xx, xy
        (n_features, n_features) and (n_features, n_targets), of products.
    yy
        Of all squared targets.
    """

    n: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: float

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, name) - getattr(other, name) for name in vars(self)))

    def fits(self, alphas: Iterable[float], n_components: int | None) -> Iterator[Linear]:
        """Fit the rows with each alpha, on their principal components where asked for."""
        x, y = self.x / self.n, self.y / self.n
        # eigenvectors of the covariance are the components, and turn ridge into a division
        strength, vectors = np.linalg.eigh(self.xx - self.n * np.outer(x, x))
        strength, vectors = strength[::-1][:n_components], vectors[:, ::-1][:, :n_components]
        reached = vectors.T @ (self.xy - self.n * np.outer(x, y))
        for alpha in alphas:
            # rounding leaves less than nothing of a strength of 0
            coefficients = vectors @ (reached / (np.maximum(strength, 0) + alpha)[:, None])
            yield coefficients, y - x @ coefficients

    def error(self, fit: Linear) -> float:
        """Mean squared error over rows and targets."""
        coefficients, intercept = fit
        product = ((self.xx @ coefficients - 2 * self.xy) * coefficients).sum()
        offset = intercept @ (2 * (self.x @ coefficients - self.y) + self.n * intercept)
        return float(self.yy + product + offset) / (self.n * len(self.y))


@dataclass(frozen=True)
class Rows:
    """Features and targets, read in blocks as differences from their means, as float64.

    Attributes
    ----------
    features, targets
        (n, n_features) and (n, n_targets).
    origin
        Means of both.
    basis
        (n, n_features): fewer rows than features reach no further than this; else None.
    """

    features: NDArray[np.floating]
    targets: NDArray[np.floating]
    origin: tuple[NDArray[np.float64], NDArray[np.float64]]
    basis: NDArray[np.float64] | None

    @classmethod
    def of(cls, features: NDArray[np.floating], targets: NDArray[np.floating]) -> Rows:
        """Take their means, and a basis where there are fewer rows than features."""
        x, y = (values.mean(axis=0, dtype=np.float64) for values in (features, targets))
        few = len(features) < len(x)
        basis = np.linalg.svd(features - x, full_matrices=False)[2] if few else None
        return cls(features, targets, (x, y), basis)

    def sums(self, rows: NDArray[np.intp]) -> Sums:
        """Sum over some rows."""
        n_targets = len(self.origin[1])
        width = len(self.origin[0]) if self.basis is None else len(self.basis)
        x, y, yy = np.zeros(width), np.zeros(n_targets), 0.0
        xx, xy = np.zeros((width, width)), np.zeros((width, n_targets))
        step = max(1, _BLOCK // (len(self.origin[0]) + n_targets))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            features = self.features[block] - self.origin[0]
            if self.basis is not None:
                features = features @ self.basis.T
            targets = self.targets[block] - self.origin[1]
            x += features.sum(axis=0)
            y += targets.sum(axis=0)
            xx += features.T @ features
            xy += features.T @ targets
            yy += float((targets**2).sum())
        return Sums(len(rows), x, y, xx, xy, yy)

    def restored(self, fit: Linear) -> Linear:
        """Coefficients (n_targets, n_features) and intercept on the features themselves."""
        inner, intercept = fit
        coefficients = (inner if self.basis is None else self.basis.T @ inner).T
        x, y = self.origin
        return coefficients, intercept + y - coefficients @ x


def fit_ridge(
    features: NDArray[np.floating],
    targets: NDArray[np.floating],
    *,
    alpha: float,
    n_components: int | None = None,
) -> Linear:
    """Fit all rows; give coefficients (n_targets, n_features) and intercept (n_targets,)."""
    rows = Rows.of(features, targets)
    (fit,) = rows.sums(np.arange(len(features))).fits([alpha], n_components)
    return rows.restored(fit)


def tune_ridge(
    features: NDArray[np.floating],
    targets: NDArray[np.floating],
    groups: NDArray[np.str_],
    *,
    n_components: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Tune ridge's alpha by leaving out one group at a time, then fit all rows.

    Gives coefficients (n_targets, n_features), intercept (n_targets,) and the alpha whose mean
    squared error, averaged over the groups, is lowest. Components are found anew on the rows of
    each split. As scikit-learn's ``GridSearchCV`` finds, which fits 13 times as often and copies
    the rows each time.

    Raises
    ------
    ValueError
        If there is a single group.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(
            f"alpha is tuned by leaving out a group, and all rows are of {str(names[0])!r}"
        )
    rows = Rows.of(features, targets)
    whole = rows.sums(np.arange(len(features)))
    errors = np.empty((len(names), len(ALPHAS)))
    for number, name in enumerate(names):
        left_out = rows.sums(np.flatnonzero(groups == name))
        fits = (whole - left_out).fits(ALPHAS, n_components)
        errors[number] = [left_out.error(fit) for fit in fits]
    alpha = ALPHAS[int(errors.mean(axis=0).argmin())]
    (fit,) = whole.fits([alpha], n_components)
    return *rows.restored(fit), alpha
