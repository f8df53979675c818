"""Fit ridge regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stpredict import _keys, _validate
from stpredict.models._methods import RIDGE
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._runner import fit
from stpredict.tl._fitting._task import Kind, Scaling, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model

Context = Literal["spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"]


@shared(held_out="what alpha is tuned on")
def fit_ridge(
    sdata: SpatialData,
    *,
    embedding: str = "X_texture",
    context: Context = "spot_neighbors",
    genes: Sequence[str] | None = None,
    layer: str | None = _keys.LOG1P,
    groups: str | None = None,
    targets: Kind = "genes",
    n_factors: int | None = None,
    scaling: Scaling | None = None,
    alpha: float | Literal["tuned", "hest"] = "tuned",
    n_components: int | None = None,
    seed: int = 0,
) -> Model:
    """Fit ridge regression on the embedding of a spot and the means over its context.

    Embeddings are standardised; sub-tiles and neighbours are averaged. All training rows are
    used. HEST-bench's recipe is ``context="spot", n_components=256, alpha="hest"``.

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
    {rows}
    {targets}
    alpha
        Shrinkage: ``"tuned"`` by leaving out one group at a time, ``"hest"`` for 100 / (features ×
        targets), or a number.
    n_components
        Principal components of the inputs to regress on, found on training rows; by default the
        inputs themselves.
    {seed}

    Returns
    -------
    Model
        ``sdata`` is not changed. `model.hyperparameters` has the alpha chosen.

    Raises
    ------
    KeyError
        If the embedding, the graph, the layer, a gene or a column is not there.
    ValueError
        If no genes are selected, embeddings or the layer have NaN, alpha is no number above 0, or
        there are more components than rows or features.

    References
    ----------
    Jaume et al., HEST-1k: a dataset for spatial transcriptomics and histology image analysis,
    NeurIPS 2024.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> model = stp.tl.fit_ridge(sdata, targets="svd", n_factors=3)
    >>> model.hyperparameters["alpha"] > 0
    True
    """
    if alpha not in ("tuned", "hest"):
        _validate.positive("alpha", alpha)  # type: ignore[arg-type]
    return fit(
        sdata,
        RIDGE,
        Task(
            embedding=embedding,
            context=context,
            genes=genes,
            layer=layer,
            groups=groups,
            sample_weight=None,
            targets=targets,
            n_factors=n_factors,
            scaling=scaling,
            seed=seed,
            device="cpu",
        ),
        network={},
        estimator={"alpha": alpha, "n_components": n_components},
    )
