"""Methods of scikit-learn that fill a network: ridge regression and extremely randomised trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.nn import ForestSets, LinearSets

#: Of standardised embeddings: from hardly any shrinkage to nearly the training mean.
ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 6, 13))


def tune_ridge(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    groups: NDArray[np.str_],
    *,
    n_components: int | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Tune ridge's alpha by leaving out one group at a time, then fit all rows.

    Returns coefficients (n_targets, n_features), intercept (n_targets,) and alpha. Components are
    found anew on the rows of each split.
    """
    search = GridSearchCV(
        _regression(SklearnRidge(), n_components, seed),
        {"ridge__alpha": ALPHAS},
        scoring="neg_mean_squared_error",
        cv=LeaveOneGroupOut().split(features, groups=groups),
    ).fit(features, targets)
    coefficients, intercept = _unroll(search.best_estimator_)
    return coefficients, intercept, float(search.best_params_["ridge__alpha"])


def _regression(ridge: SklearnRidge, n_components: int | None, seed: int) -> Any:
    """Ridge regression, of principal components where asked for."""
    steps = [] if n_components is None else [PCA(n_components, random_state=seed)]
    return make_pipeline(*steps, ridge)


def _unroll(pipeline: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients and intercept on the features themselves."""
    ridge = pipeline[-1]
    coefficients, intercept = np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
    if len(pipeline) > 1:
        pca = pipeline[0]
        coefficients = coefficients @ pca.components_
        intercept = intercept - coefficients @ pca.mean_
    return coefficients, np.broadcast_to(intercept, (len(coefficients),)).copy()


def fit_linear(
    network: LinearSets,
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    groups: NDArray[np.str_],
    *,
    alpha: float | Literal["tuned", "hest"],
    n_components: int | None,
    seed: int,
) -> dict[str, Any]:
    """Fill a linear network by ridge regression, of principal components where asked for."""
    if n_components is not None:
        _check_components(n_components, features, groups, tuned=alpha == "tuned")
    if alpha == "tuned":
        coefficients, intercept, chosen = tune_ridge(
            features, targets, groups, n_components=n_components, seed=seed
        )
    else:
        width = features.shape[1] if n_components is None else n_components
        # HEST-bench shrinks by the size of the problem, not by what is held out
        chosen = 100 / (width * targets.shape[1]) if alpha == "hest" else float(alpha)
        pipeline = _regression(SklearnRidge(alpha=chosen), n_components, seed)
        coefficients, intercept = _unroll(pipeline.fit(features, targets))
    with torch.no_grad():
        network.linear.weight.copy_(torch.from_numpy(coefficients))
        network.linear.bias.copy_(torch.from_numpy(intercept))
    return {"alpha": chosen}


def _check_components(
    n_components: int, features: NDArray[np.float32], groups: NDArray[np.str_], *, tuned: bool
) -> None:
    """Require no more components than there are features, and rows to find them on."""
    n_rows, n_features = features.shape
    where = ""
    if tuned:
        n_rows -= int(np.unique(groups, return_counts=True)[1].max())
        where = " without the largest group, which is left out to tune alpha"
    if not 1 <= n_components <= min(n_rows, n_features):
        raise ValueError(
            f"n_components={n_components} must be 1 to {min(n_rows, n_features)}: there are "
            f"{n_features} features, and {n_rows} training rows{where}"
        )


def fit_forest(
    network: ForestSets,
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    groups: NDArray[np.str_],
    *,
    n_trees: int,
    min_samples_leaf: int,
    max_features: float,
    seed: int,
) -> dict[str, Any]:
    """Fill a network with extremely randomised trees."""
    forest = ExtraTreesRegressor(
        n_trees,
        min_samples_leaf=min_samples_leaf,
        max_features=max_features,
        n_jobs=-1,
        random_state=seed,
    ).fit(features, targets)
    tables: dict[str, list[NDArray[Any]]] = {"feature": [], "threshold": [], "branches": []}
    values, roots, n_nodes = [], [], 0
    for tree in (estimator.tree_ for estimator in forest.estimators_):
        branches = np.stack([tree.children_left, tree.children_right], axis=1)
        leaf = branches[:, :1] < 0
        tables["feature"].append(np.where(leaf[:, 0], -1, tree.feature))
        tables["threshold"].append(tree.threshold)
        tables["branches"].append(np.where(leaf, -1, branches + n_nodes))
        # only leaves are read: zeros elsewhere compress on disk
        values.append(np.where(leaf, tree.value[:, :, 0], 0).astype(np.float32))
        roots.append(n_nodes)
        n_nodes += tree.node_count
    network.grow(
        **{name: torch.from_numpy(np.concatenate(parts)) for name, parts in tables.items()},
        value=torch.from_numpy(np.concatenate(values)),
        roots=torch.tensor(roots),
    )
    return {}
