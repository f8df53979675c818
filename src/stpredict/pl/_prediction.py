"""A gene on the tissue: H&E, measured, predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize

from stpredict import _keys, _provenance, _sections, _validate, metrics
from stpredict.pl import _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def prediction(
    sdata: SpatialData,
    gene: str,
    *,
    section: str | None = None,
    axes: Sequence[Axes] | None = None,
) -> NDArray[Any]:
    """Draw a gene on the tissue: H&E, measured, and predicted on the same colour scale.

    Without measured values of the gene, the H&E and the prediction.

    Parameters
    ----------
    sdata
        Sections with ``tables["predicted"]``.
    gene
        Name of a predicted gene.
    section
        Which section; needed where there are several.
    axes
        Axes to draw on, three (two without measured values); by default new ones.

    Returns
    -------
    Array of :class:`matplotlib.axes.Axes`, one per panel. Axes are in µm, the origin at the upper
    left of the image.

    Raises
    ------
    KeyError
        If the gene was not predicted, or there is no such section.
    ValueError
        If there are several sections and none is named, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> axes = stp.pl.prediction(sdata, "ERBB2")  # doctest: +SKIP
    """
    predicted = _sections.table_of(sdata, _keys.PREDICTED)
    if gene not in predicted.var_names:
        raise KeyError(
            f"{gene!r} was not predicted; predicted genes: {_validate.listing(predicted.var_names)}"
        )
    found = _section.choose(_sections.sections(sdata, predicted), section)
    how = _provenance.recorded(predicted, "predict")
    values = np.asarray(predicted.X[found.rows, predicted.var_names.get_loc(gene)])
    measured = _measured(sdata, predicted.obs_names[found.rows], gene, how["layer"])
    panels = [("measured", measured)] if measured is not None else []
    panels.append(("predicted", values))
    within, n = _section.limits(found), 1 + len(panels)
    drawn = _section.new_axes(n, within) if axes is None else _section.given_axes(axes, n)

    _section.draw_image(drawn[0], found, within)
    drawn[0].set_title(f"{found.name}: H&E")
    pooled = np.concatenate([shown for _, shown in panels])
    # the same scale for both, not stretched by single spots
    norm = Normalize(*np.percentile(pooled, [1, 99]))
    for ax, (title, shown) in zip(drawn[1:], panels, strict=True):
        spots = _section.draw_spots(ax, found, shown, norm, cmap="viridis")
        ax.set_title(f"{gene} {title}")
    if measured is not None and len(values) > 1:
        score = metrics.pcc(measured[:, None], values[:, None])[0]
        drawn[-1].set_title(f"{gene} predicted (PCC {score:.2f})")
    _section.draw_bar(drawn[-1], spots, how["units"], extend="both", extendfrac=0.03)
    for ax in drawn:
        _section.frame(ax, within)
    return drawn


def _measured(
    sdata: SpatialData, spots: Sequence[str], gene: str, layer: str
) -> NDArray[np.float64] | None:
    table: AnnData = _sections.table_of(sdata)
    rows = table.obs_names.get_indexer(spots)
    if gene not in table.var_names or layer not in table.layers or (rows < 0).any():
        return None
    column = table.layers[layer][rows][:, [table.var_names.get_loc(gene)]]
    dense = column.toarray() if hasattr(column, "toarray") else column
    return np.asarray(dense, dtype=np.float64).ravel()
