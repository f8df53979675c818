"""Fit ridge regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.models._methods import RIDGE
from stpredict.models._records import Hyperparameters, RidgeOptions
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import Plan, fit
from stpredict.tl._fitting._values import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
@shared(held_out="tuning of alpha")
def fit_ridge(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Literal[
        "spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"
    ] = "spot_neighbors",
    standardize: Literal["training", "section"] = "training",
    genes: Sequence[str] | None = None,
    layer: str | None = "log1p",
    groups: str | None = None,
    targets: Literal["genes", "svd", "nmf", "autoencoder", "high"] = "genes",
    n_factors: int | None = None,
    scaling: Literal["standard", "robust", "none"] | None = None,
    quantile: float | None = None,
    alpha: float | Literal["tuned", "hest"] = "tuned",
    n_components: int | None = None,
    seed: int = 0,
    table_name: str = "table",
) -> Model:
    """Fit ridge regression on the embedding of a spot and the means over its context.

    All rows are used. HEST-bench uses ``context="spot", n_components=256, alpha="hest"``. For
    ``targets="high"``, ridge regression on 0 and 1 is turned into log odds around the share of high
    spots, the first step of logistic regression.

    Parameters
    ----------
    {sdata}
    {embedding}
    {context}
    {standardize}
    {rows}
    {targets}
    {quantile}
    alpha
        Shrinkage: ``"tuned"`` by leaving out one group at a time, ``"hest"`` for 100 / (features ×
        targets), or a number.
    n_components
        Number of principal components of the inputs to regress on; by default all inputs.
    {seed}
    {table_name}

    Returns
    -------
    Model
        Fitted model, with the alpha in ``model.hyperparameters.estimator.alpha``.

    Raises
    ------
    {raises}

    References
    ----------
    Jaume et al., HEST-1k: a dataset for spatial transcriptomics and histology image analysis,
    NeurIPS 2024.

    Examples
    --------
    {prepared}
    >>> model = stp.tl.fit_ridge(sdata, targets="svd", n_factors=3)
    >>> model.hyperparameters.estimator.alpha > 0
    True
    """
    if alpha not in ("tuned", "hest"):
        _validate.positive("alpha", alpha)  # type: ignore[arg-type]
    if n_components is not None:
        _validate.whole_number("n_components", n_components)
    task = Task(
        embedding=embedding,
        context=context,
        standardize=standardize,
        genes=genes,
        layer=layer,
        groups=groups,
        targets=targets,
        n_factors=n_factors,
        scaling=scaling,
        quantile=quantile,
        seed=seed,
    )
    options = Hyperparameters(estimator=RidgeOptions(alpha, n_components))
    return fit(open_table(sdata, table_name), Plan(RIDGE, task, options))
