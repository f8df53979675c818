"""Methods that fill a network from all rows at once: ridge regression and randomised trees."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor

from stpredict.models._tune import fit_ridge, tune_ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.nn import ForestSets, LinearSets


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
    """Fill a linear network by ridge regression, of principal components where asked for.

    Nothing is drawn, whatever the seed.
    """
    if n_components is not None:
        _check_components(n_components, features, groups, tuned=alpha == "tuned")
    if alpha == "tuned":
        coefficients, intercept, chosen = tune_ridge(
            features, targets, groups, n_components=n_components
        )
    else:
        width = features.shape[1] if n_components is None else n_components
        # HEST-bench shrinks by the size of the problem, not by what is held out
        chosen = 100 / (width * targets.shape[1]) if alpha == "hest" else float(alpha)
        coefficients, intercept = fit_ridge(
            features, targets, alpha=chosen, n_components=n_components
        )
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
    )
    with warnings.catch_warnings():  # the forest's threads would leave the process's filters empty
        forest.fit(features, targets)
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
