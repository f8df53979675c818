"""Average expression over similar or neighbouring spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._sdata._layer_steps import check_new_layer, record_layer_step
from stpredict._sdata._slots import write_slot
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import SmoothStep
from stpredict.pp._expression._gene_scores import canonical, section_pca

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked
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

    This removes counting noise from the training data. Scores against smoothed values are higher
    than those against measured values, so that `tl.evaluate` refuses them: name the measured layer
    (``stp.tl.evaluate(sdata, layer="log1p")``).

    Parameters
    ----------
    sdata
        Sections with a table.
    layer
        Layer to smooth; None for ``X``.
    by
        Kind of neighbours within the section. ``"space"``: those in the graph of
        :func:`stpredict.pp.neighbors`. ``"expression"``: the nearest in the first 50 principal
        components, which keeps tissue borders sharp, as DeepSpot is trained.
    n_neighbors
        Number of neighbours by expression, without the spot itself; 10 by default.
    table_name, key_added, copy
        Names of the table and of the new layer, and whether to change and return a copy.

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
        If the layer has NaN or does not vary, ``n_neighbors`` is given for ``by="space"`` or too
        large for a section, or ``key_added`` is invalid, the name of the layer that is smoothed or
        that of your own layer.

    References
    ----------
    Nonchev et al., DeepSpot, medRxiv 2025.

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
    if n_neighbors is not None and by == "space":
        raise ValueError(
            f"n_neighbors={n_neighbors!r} requires by='expression'; in space, the graph of "
            "stp.pp.neighbors defines the neighbours"
        )
    if by == "expression":
        n_neighbors = 10 if n_neighbors is None else n_neighbors
        _validate.whole_number("n_neighbors", n_neighbors)
    spots = open_table(sdata, table_name, copy=copy)
    check_new_layer(spots.table, key_added, layer)
    step = SmoothStep(key_added=key_added, layer=layer, by=by, n_neighbors=n_neighbors)
    smooth_layer(spots, step)
    return spots.sdata if copy else None


def smooth_layer(spots: SpotTable, step: SmoothStep) -> None:
    """Write the smoothed layer of an opened table."""
    values = spots.layer(step.layer)
    if step.n_neighbors is None:
        graph = _spatial_links(spots)
    else:
        graph = _expression_links(spots, values, step.n_neighbors)
    # the identity adds the spot itself, with the weight of one neighbour
    weights = normalize(graph + sp.eye(graph.shape[0]), norm="l1").astype(np.float32)
    write_slot(spots.table, "layers", step.key_added, weights @ canonical(values, np.float32))
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
    """Links to the nearest spots of the section in expression, (n_obs, n_obs)."""
    blocks = []
    for section, rows in spots.section_rows.items():
        if len(rows) <= n_neighbors:
            raise ValueError(
                f"section {section!r} has {len(rows)} spots, too few for {n_neighbors} neighbours "
                "each: give a smaller n_neighbors="
            )
        # a fixed seed: the same layer gives the same neighbours
        components = section_pca(values, rows, section=section, seed=0)
        blocks.append(kneighbors_graph(components, n_neighbors))  # without the spot itself
    graph = sp.block_diag(blocks, format="coo")
    order = np.concatenate(list(spots.section_rows.values()))
    return sp.csr_matrix((graph.data, (order[graph.row], order[graph.col])), shape=graph.shape)
