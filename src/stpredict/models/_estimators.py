"""Methods that fit all rows at once: ridge regression and randomised trees."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor

from stpredict.models._tune import fit_ridge, tune_ridge
from stpredict.targets._high import log_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.models._records import RidgeOptions, TreesOptions
    from stpredict.nn import ForestSets, LinearSets


def fit_linear(
    network: LinearSets,
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    groups: NDArray[np.str_],
    options: RidgeOptions,
    *,
    seed: int,
) -> RidgeOptions:
    """Fill a linear network by ridge regression; returns the options with the alpha used."""
    n_components = options.n_components
    (n_rows, n_features), left_out = features.shape, ""
    if options.alpha == "tuned":
        n_rows -= int(np.unique(groups, return_counts=True)[1].max())
        left_out = " without the largest group, which is left out to tune alpha"
    # there are no more principal components than rows
    if n_components is not None and not 1 <= n_components <= min(n_rows, n_features):
        raise ValueError(
            f"n_components={n_components} must be 1 to {min(n_rows, n_features)}: there are "
            f"{n_features} features, and {n_rows} training rows{left_out}"
        )
    if options.alpha == "tuned":
        coefficients, intercept, alpha = tune_ridge(
            features, targets, groups, n_components=n_components
        )
    else:
        n_inputs = n_features if n_components is None else n_components
        # HEST-bench sets alpha from the size of the problem instead of tuning it
        hest = 100 / (n_inputs * targets.shape[1])
        alpha = hest if options.alpha == "hest" else float(options.alpha)
        coefficients, intercept = fit_ridge(
            features, targets, alpha=alpha, n_components=n_components
        )
    with torch.no_grad():
        network.linear.weight.copy_(torch.from_numpy(coefficients))
        network.linear.bias.copy_(torch.from_numpy(intercept))
    source = options.alpha if isinstance(options.alpha, str) else "given"
    return replace(options, alpha=alpha, alpha_from=source)


def fit_log_odds(
    network: LinearSets,
    features: NDArray[np.float32],
    is_high: NDArray[np.float32],  # (n, n_targets), 0 or 1
    groups: NDArray[np.str_],
    options: RidgeOptions,
    *,
    seed: int,
) -> RidgeOptions:
    """Fill a linear network with log odds, by ridge regression on 0 and 1.

    It is the first step of logistic regression by reweighted least squares, which starts from the
    share of each target: log odds change by 1 / (share (1 - share)) times the probability.
    """
    share = is_high.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(share * (1 - share))
    deviation[deviation == 0] = 1  # constant targets are predicted as their constant
    scaled = ((is_high - share) / deviation).astype(np.float32)  # so that each has the same weight
    options = fit_linear(network, features, scaled, groups, options, seed=seed)
    with torch.no_grad():
        slope = torch.from_numpy(1 / deviation).to(network.linear.weight)
        network.linear.weight.mul_(slope[:, None])
        network.linear.bias.mul_(slope).add_(torch.from_numpy(log_odds(share)))
    return options


def fit_forest(
    network: ForestSets,
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    groups: NDArray[np.str_],
    options: TreesOptions,
    *,
    seed: int,
) -> TreesOptions:
    """Fill a network with extremely randomised trees; returns the options."""
    forest = ExtraTreesRegressor(
        options.n_trees,
        min_samples_leaf=options.min_samples_leaf,
        max_features=options.max_features,
        n_jobs=-1,
        random_state=seed,
    )
    # the forest's threads would otherwise leave the process without warning filters
    with warnings.catch_warnings():
        forest.fit(features, targets)
    tables: dict[str, list[NDArray[Any]]] = {"feature": [], "threshold": [], "branches": []}
    values, roots, n_nodes = [], [], 0
    for tree in (estimator.tree_ for estimator in forest.estimators_):
        # joined into one table, children are numbered over all trees
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
    return options
