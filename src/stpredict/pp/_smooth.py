"""Values averaged over spots that are alike, or near."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from stpredict import _keys, _validate
from stpredict._sdata import _layers, _sections
from stpredict.pp._expression._pca import section_pca
from stpredict.pp._neighbors import graph_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Neighbours in expression, where none are asked for.
_N_NEIGHBORS = 10


def smooth(
    sdata: SpatialData,
    *,
    layer: str | None = _keys.LOG1P,
    by: Literal["space", "expression"] = "space",
    n_neighbors: int | None = None,
    key_added: str = _keys.SMOOTHED,
    copy: bool = False,
) -> SpatialData | None:
    """Replace every value by the mean over the spot and its neighbours.

    Takes counting noise from what a model is trained on. Neighbours are of the same section.
    Scores against smoothed values are higher than against what was measured, and not comparable
    with them: ``stp.tl.evaluate(sdata, layer="log1p")`` gives the latter.

    Parameters
    ----------
    sdata
        Sections with a table.
    layer
        Layer to smooth; None: ``X``.
    by
        Who the neighbours are. ``"space"``: those of the spatial graph (`pp.neighbors`).
        ``"expression"``: the nearest in the 50 first principal components of the layer within the
        section, so that borders of the tissue stay sharp, as DeepSpot is trained.
    n_neighbors
        Neighbours by expression, the spot itself not counted; by default 10. In space, the graph
        says.
    key_added
        Name of the new layer.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables["table"]``: ``layers[key_added]`` (n_obs, n_vars) float32, CSR if the
        layer is sparse, and ``uns["stpredict"]["smooth"][key_added]``.

    Raises
    ------
    KeyError
        If the layer, or for ``by="space"`` the graph, is not there.
    ValueError
        If the layer has NaN, ``n_neighbors`` is given for ``by="space"`` or exceeds the other
        spots of a section, expression does not vary within a section, or ``key_added`` would
        overwrite the layer that is smoothed.

    References
    ----------
    Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial transcriptomics
    prediction from H&E images, medRxiv 2025.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> stp.pp.smooth(sdata)
    >>> sdata.tables["table"].layers["smoothed"].dtype
    dtype('float32')
    """
    _validate.one_of("by", by, ["space", "expression"])
    _layers.check_name(key_added, layer)
    if n_neighbors is not None and by == "space":
        raise ValueError(
            f"n_neighbors={n_neighbors!r} goes with by='expression'; in space, the graph of "
            "stp.pp.neighbors says who is a neighbour"
        )
    if by == "expression":
        n_neighbors = _N_NEIGHBORS if n_neighbors is None else n_neighbors
        if not isinstance(n_neighbors, int) or n_neighbors < 1:
            raise ValueError(f"n_neighbors must be a whole number of at least 1: {n_neighbors!r}")
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    values = _sections.layer_of(table, layer)
    graph = _in_space(table) if n_neighbors is None else _in_expression(table, values, n_neighbors)
    table.layers[key_added] = _mean(values, graph)
    _layers.record(table, "smooth", key_added, layer=layer, by=by, n_neighbors=n_neighbors)
    return sdata if copy else None


def _in_space(table: AnnData) -> sp.csr_matrix:
    """Links of the spatial graph within sections, (n_obs, n_obs)."""
    graph = sp.coo_matrix(graph_of(table))
    region = _sections.region_of(table)
    linked = (graph.data != 0) & (graph.row != graph.col)
    linked &= region[graph.row] == region[graph.col]
    links = graph.row[linked], graph.col[linked]
    return sp.csr_matrix((np.ones(linked.sum()), links), shape=graph.shape)


def _in_expression(table: AnnData, values: Any, n_neighbors: int) -> sp.csr_matrix:
    """Links to the nearest spots of a section in expression, (n_obs, n_obs)."""
    region = _sections.region_of(table)
    first, second = [], []
    for section in _sections.section_names(table):
        rows = np.flatnonzero(region == section)
        if len(rows) <= n_neighbors:
            raise ValueError(
                f"section {section!r} has {len(rows)} spots, too few for {n_neighbors} neighbours "
                "each: give a smaller n_neighbors="
            )
        components = section_pca(values, rows, section=section, seed=0)
        tree = NearestNeighbors(n_neighbors=n_neighbors).fit(components)
        nearest = tree.kneighbors(return_distance=False)  # of each, without itself
        first.append(np.repeat(rows, n_neighbors))
        second.append(rows[nearest.ravel()])
    links = np.concatenate(first), np.concatenate(second)
    return sp.csr_matrix((np.ones(len(links[0])), links), shape=(table.n_obs, table.n_obs))


def _mean(values: Any, graph: sp.csr_matrix) -> NDArray[np.float32] | sp.csr_matrix:
    """Mean of every row and those it links to."""
    weights = normalize(graph + sp.eye(graph.shape[0]), norm="l1").astype(np.float32)
    if sp.issparse(values):  # a copy: scipy sorts indices in place
        return sp.csr_matrix(weights @ sp.csr_matrix(values, dtype=np.float32, copy=True))
    return np.asarray(weights @ np.asarray(values, dtype=np.float32))
