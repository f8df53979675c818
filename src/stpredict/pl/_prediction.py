"""A gene on the tissue: H&E, measured, predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize

from stpredict import _keys, _provenance, _sections, _validate, metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Sharp enough for a panel of a few inches.
_MOST_PX = 1500
#: Empty rim around the spots, as a share of their extent.
_MARGIN = 0.06


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
    found = _choose(_sections.sections(sdata, predicted), section)
    how = _provenance.recorded(predicted, "predict")
    values = np.asarray(predicted.X[found.rows, predicted.var_names.get_loc(gene)])
    measured = _measured(sdata, predicted.obs_names[found.rows], gene, how["layer"])
    panels = [("measured", measured)] if measured is not None else []
    panels.append(("predicted", values))
    drawn = _axes(axes, 1 + len(panels), found)

    _draw_image(drawn[0], found)
    drawn[0].set_title(f"{found.name}: H&E")
    pooled = np.concatenate([shown for _, shown in panels])
    # the same scale for both, not stretched by single spots
    norm = Normalize(*np.percentile(pooled, [1, 99]))
    for ax, (title, shown) in zip(drawn[1:], panels, strict=True):
        spots = _draw_spots(ax, found, shown, norm)
        ax.set_title(f"{gene} {title}")
    if measured is not None and len(values) > 1:
        score = metrics.pcc(measured[:, None], values[:, None])[0]
        drawn[-1].set_title(f"{gene} predicted (PCC {score:.2f})")
    bar = drawn[-1].inset_axes((1.04, 0, 0.05, 1))  # as long as the panel, whatever its aspect
    drawn[-1].figure.colorbar(spots, cax=bar, label=how["units"], extend="both", extendfrac=0.03)
    for ax in drawn:
        _frame(ax, found)
    return drawn


def _choose(found: list[_sections.Section], name: str | None) -> _sections.Section:
    names = [section.name for section in found]
    if name is None and len(found) > 1:
        raise ValueError(f"there are {len(found)} sections, choose one: section={names[0]!r}, …")
    if name is not None and name not in names:
        raise KeyError(f"no section {name!r}; sections: {_validate.listing(names)}")
    return found[0 if name is None else names.index(name)]


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


def _axes(axes: Sequence[Axes] | None, n: int, section: _sections.Section) -> NDArray[Any]:
    if axes is None:
        low, high = _limits(section)
        width, height = high - low
        figsize = (4.2 * n + 0.8, float(np.clip(4 * height / width, 2, 8)) + 0.9)
        _, made = plt.subplots(1, n, figsize=figsize, layout="constrained")
        return np.asarray(made)
    given = np.asarray(axes).ravel()
    if len(given) != n:
        raise ValueError(f"{n} axes are needed, {len(given)} given")
    return given


def _limits(section: _sections.Section) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Extent of the spots with a rim, in µm."""
    low, high = section.centers_um.min(axis=0), section.centers_um.max(axis=0)
    rim = _MARGIN * (high - low).max() + section.radius_um.max()
    height, width = section.shape_yx
    edge = np.array([width, height]) * section.mpp
    return np.maximum(low - rim, 0), np.minimum(high + rim, edge)


def _draw_image(ax: Axes, section: _sections.Section) -> None:
    low, high = _limits(section)
    for level in section.levels:  # the finest that is no larger than needed
        mpp = section.mpp * section.shape_yx[1] / level.shape[2]
        if (high - low).max() / mpp <= _MOST_PX:
            break
    (x0, y0), (x1, y1) = np.floor(low / mpp).astype(int), np.ceil(high / mpp).astype(int)
    pixels = np.asarray(level[:, y0:y1, x0:x1]).transpose(1, 2, 0)
    y1, x1 = y0 + pixels.shape[0], x0 + pixels.shape[1]
    ax.imshow(pixels, extent=(x0 * mpp, x1 * mpp, y1 * mpp, y0 * mpp))


def _draw_spots(
    ax: Axes, section: _sections.Section, values: NDArray[np.floating], norm: Normalize
) -> EllipseCollection:
    width = 2 * section.radius_um
    spots = EllipseCollection(
        width, width, np.zeros(len(width)), units="xy", offsets=section.centers_um,
        offset_transform=ax.transData, array=values, norm=norm, cmap="viridis",
    )  # fmt: skip
    ax.add_collection(spots)
    return spots


def _frame(ax: Axes, section: _sections.Section) -> None:
    low, high = _limits(section)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(high[1], low[1])  # rows of an image count downwards
    ax.set_aspect("equal")
    ax.set_xlabel("µm")
