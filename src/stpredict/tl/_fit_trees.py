"""Fit extremely randomised trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import TREES
from stpredict.models._records import Hyperparameters, TreesOptions
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import Plan, fit
from stpredict.tl._fitting._values import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
@shared()
def fit_trees(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Literal[
        "spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"
    ] = "spot_neighbors",
    standardize: Literal["training", "section"] = "training",
    genes: Sequence[str] | None = None,
    layer: str | None = "log1p",
    targets: Literal["genes", "svd", "nmf", "autoencoder"] = "genes",
    n_factors: int | None = None,
    scaling: Literal["standard", "robust", "none"] | None = None,
    n_trees: int = 200,
    min_samples_leaf: int = 5,
    max_features: float = 0.3,
    seed: int = 0,
    table_name: str = "table",
) -> Model:
    """Fit extremely randomised trees on the embedding of a spot and the means over its context.

    All rows are used. The spread over the trees goes to ``layers["std"]`` of predictions.

    Parameters
    ----------
    {sdata}
    {embedding}
    {context}
    {standardize}
    genes
        Genes to predict, by default those of ``var["selected"]``.
    layer
        Layer to predict; None is ``X``. Predictions are in its units.
    {targets}
    n_trees, min_samples_leaf
        Number of trees, and minimum number of spots in a leaf.
    max_features
        Share of the features that are considered at each split, in (0, 1].
    {seed}
    {table_name}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    References
    ----------
    Geurts, Ernst and Wehenkel, Extremely randomized trees, Machine Learning 2006.

    Examples
    --------
    {prepared}
    >>> model = stp.tl.fit_trees(sdata, n_trees=20)
    >>> stp.tl.predict(sdata, model)
    >>> sdata.tables["predicted"].layers["std"].shape == sdata.tables["predicted"].shape
    True
    """
    _validate.whole_number("n_trees", n_trees)
    _validate.whole_number("min_samples_leaf", min_samples_leaf)
    _validate.positive("max_features", max_features)
    if max_features > 1:
        raise ValueError(f"max_features={max_features!r} must be a share, above 0 and up to 1")
    task = Task(
        embedding=embedding,
        context=context,
        standardize=standardize,
        genes=genes,
        layer=layer,
        targets=targets,
        n_factors=n_factors,
        scaling=scaling,
        seed=seed,
    )
    options = Hyperparameters(
        estimator=TreesOptions(n_trees, min_samples_leaf, float(max_features))
    )
    return fit(open_table(sdata, table_name), Plan(TREES, task, options))
