"""Average expression over similar or neighbouring spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from stpredict import _validate
from stpredict._sdata._layer_steps import check_new_layer, record_layer_step
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import SmoothStep
from stpredict.pp._expression._pca import section_pca

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable

#: Default number of neighbours in expression.
_N_NEIGHBORS = 10


def smooth(
    sdata: SpatialData,
    *,
    layer: str | None = "log1p",
    by: Literal["space", "expression"] = "space",
    n_neighbors: int | None = None,
    table_name: str = "table",
    key_added: str = "smoothed",
    copy: bool = False,
) -> SpatialData | None:
    """Replace every value by the mean over the spot and its neighbours.

    This removes counting noise from the training data. Neighbours belong to the same section.
    Scores against smoothed values are higher than scores against measured values and cannot be
    compared with them; ``stp.tl.evaluate(sdata, layer="log1p")`` gives the latter.

    Parameters
    ----------
    sdata
        Sections with a table.
    layer
        Layer to smooth; None for ``X``.
    by
        Kind of neighbours. ``"space"``: those of the spatial graph
        (:func:`stpredict.pp.neighbors`). ``"expression"``: the nearest in the first 50 principal
        components of the layer within the section, which keeps tissue borders sharp, as DeepSpot is
        trained.
    n_neighbors
        Number of neighbours by expression, without the spot itself; 10 by default. Not allowed with
        ``by="space"``, where the graph defines them.
    table_name
        Name of the table.
    key_added
        Name of the new layer.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables[table_name]``: ``layers[key_added]`` (n_obs, n_vars) float32, CSR if the
        layer is sparse, and ``uns["stpredict"]["smooth"][key_added]``.

    Raises
    ------
    KeyError
        If the layer, or for ``by="space"`` the graph, is missing.
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
    check_new_layer(key_added, layer)
    if n_neighbors is not None and by == "space":
        raise ValueError(
            f"n_neighbors={n_neighbors!r} requires by='expression'; in space, the graph of "
            "stp.pp.neighbors defines the neighbours"
        )
    if by == "expression":
        n_neighbors = _N_NEIGHBORS if n_neighbors is None else n_neighbors
        _validate.whole_number("n_neighbors", n_neighbors)
    spots = open_table(sdata, table_name, copy=copy)
    smooth_layer(
        spots, SmoothStep(key_added=key_added, layer=layer, by=by, n_neighbors=n_neighbors)
    )
    return spots.sdata if copy else None


def smooth_layer(spots: SpotTable, step: SmoothStep) -> None:
    """Write the smoothed layer of an opened table."""
    values = spots.layer(step.layer)
    if step.n_neighbors is None:
        graph = _spatial_links(spots)
    else:
        graph = _expression_links(spots, values, step.n_neighbors)
    spots.table.layers[step.key_added] = _mean(values, graph)
    record_layer_step(spots.table, step)


def _spatial_links(spots: SpotTable) -> sp.csr_matrix:
    """Links of the spatial graph within sections, without weights, (n_obs, n_obs)."""
    graph = sp.coo_matrix(spots.graph)
    section = spots.section_of_row
    # the graph may come from another tool: drop self-links and links between sections
    linked = (graph.data != 0) & (graph.row != graph.col)
    linked &= section[graph.row] == section[graph.col]
    links = graph.row[linked], graph.col[linked]
    return sp.csr_matrix((np.ones(linked.sum()), links), shape=graph.shape)


def _expression_links(spots: SpotTable, values: Any, n_neighbors: int) -> sp.csr_matrix:
    """Links to the spots of the section that are nearest in expression, (n_obs, n_obs)."""
    first, second = [], []
    for section, rows in spots.section_rows.items():
        if len(rows) <= n_neighbors:
            raise ValueError(
                f"section {section!r} has {len(rows)} spots, too few for {n_neighbors} neighbours "
                "each: give a smaller n_neighbors="
            )
        # a fixed seed: the same layer gives the same neighbours
        components = section_pca(values, rows, section=section, seed=0)
        tree = NearestNeighbors(n_neighbors=n_neighbors).fit(components)
        nearest = tree.kneighbors(return_distance=False)  # without the spot itself
        first.append(np.repeat(rows, n_neighbors))
        second.append(rows[nearest.ravel()])
    links = np.concatenate(first), np.concatenate(second)
    n_obs = spots.table.n_obs
    return sp.csr_matrix((np.ones(len(links[0])), links), shape=(n_obs, n_obs))


def _mean(values: Any, graph: sp.csr_matrix) -> NDArray[np.float32] | sp.csr_matrix:
    """Mean of every row and the rows it links to."""
    # the identity adds the spot itself, with the weight of one neighbour
    weights = normalize(graph + sp.eye(graph.shape[0]), norm="l1").astype(np.float32)
    if sp.issparse(values):  # a copy: scipy sorts indices in place
        return sp.csr_matrix(weights @ sp.csr_matrix(values, dtype=np.float32, copy=True))
    return np.asarray(weights @ np.asarray(values, dtype=np.float32))
