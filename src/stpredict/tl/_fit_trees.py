"""Fit extremely randomised trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _keys, _validate
from stpredict.models._methods import TREES
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import fit
from stpredict.tl._fitting._task import Kind, Scaling, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model

Context = Literal["spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"]


@shared()
def fit_trees(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Context = "spot_neighbors",
    genes: Sequence[str] | None = None,
    layer: str | None = _keys.LOG1P,
    targets: Kind = "genes",
    n_factors: int | None = None,
    scaling: Scaling | None = None,
    n_trees: int = 200,
    min_samples_leaf: int = 5,
    max_features: float = 0.3,
    seed: int = 0,
) -> Model:
    """Fit extremely randomised trees on the embedding of a spot and the means over its context.

    All training rows are used. The spread over the trees goes to ``layers["std"]`` of
    predictions.

    Parameters
    ----------
    sdata
        Training sections, with embeddings (`pp.embed`), for contexts with neighbours a graph
        (`pp.neighbors`), a layer to predict (`pp.normalize`), and the genes to predict
        (`pp.select_genes`).
    embedding
        Slot in ``obsm``.
    context
        What is looked at beside the spot: sub-tiles (``subspot``), neighbours, both, or nothing.
    genes
        Genes to predict, by default those of ``var["selected"]``.
    layer
        Layer to predict; None is ``X``.
    {targets}
    n_trees
        Number of trees.
    min_samples_leaf
        Fewest spots in a leaf.
    max_features
        Share of the features that a split is chosen from, in (0, 1].
    {seed}

    Returns
    -------
    Model
        ``sdata`` is not changed.

    Raises
    ------
    KeyError
        If the embedding, the graph, the layer or a gene is not there.
    ValueError
        If no genes are selected, embeddings or the layer have NaN, or an option is out of range.

    References
    ----------
    Geurts, Ernst and Wehenkel, Extremely randomized trees, Machine Learning 2006.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> model = stp.tl.fit_trees(sdata, n_trees=20)
    >>> stp.tl.predict(sdata, model)
    >>> sdata.tables["predicted"].layers["std"].shape == sdata.tables["predicted"].shape
    True
    """
    for name, value in {"n_trees": n_trees, "min_samples_leaf": min_samples_leaf}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1: {value!r}")
    _validate.positive("max_features", max_features)
    if max_features > 1:
        raise ValueError(
            f"max_features={max_features!r} is a share of the features, above 0 and up to 1"
        )
    return fit(
        sdata,
        TREES,
        Task(
            embedding=embedding,
            context=context,
            genes=genes,
            layer=layer,
            groups=None,
            sample_weight=None,
            targets=targets,
            n_factors=n_factors,
            scaling=scaling,
            seed=seed,
            device="cpu",
        ),
        network={},
        estimator={
            "n_trees": n_trees,
            "min_samples_leaf": min_samples_leaf,
            "max_features": max_features,
        },
    )
