"""Contributions to the prediction of a gene, on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _attributions, _axes, _section
from stpredict.pl._drawing._section import SpotStyle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.pl._drawing._attributions import Attributions

#: Number of tiles per section that are drawn if no spots are named.
_N_TILES = 4


@checked
def attribution(
    sdata: SpatialData,
    gene: str,
    *,
    section: str | Sequence[str] | None = None,
    spots: str | Sequence[str] | None = None,
    cmap: str | Colormap = "RdBu_r",
    vmin: float | None = None,
    vmax: float | None = None,
    spot_size: float | None = None,
    alpha: float = 1.0,
    table_name: str = "table",
    key: str = "predicted",
    axes: Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw what contributes to the prediction of a gene.

    For models on embeddings, each section is a row: the H&E, then the contribution of each spot's
    own tile, of its sub-tiles and of its neighbours, with their percentage of the mean absolute
    contribution. With ``spots``, each panel shows one spot and its neighbours. For models on
    pixels, tiles are drawn, and below them the contribution of each pixel. Red adds to the
    prediction and blue subtracts from it; all panels share one scale.

    Parameters
    ----------
    sdata
        Sections on which :func:`stpredict.tl.attribute` was run.
    gene
        Name of the gene.
    section
        Name of a section, or several; by default all that were attributed.
    spots
        Names of spots in ``obs_names``; for models on pixels, by default four of each section.
    cmap, vmin, vmax
        Colour map, which should be symmetric around 0, and ends of its scale; by default the 99.5th
        percentile of the absolute contributions and its negative.
    spot_size, alpha
        Diameter of the spots in µm, by default as stored, and opacity of spots and pixels.
    table_name, key
        Table that the model was applied to, and table with the predictions and attributions.
    axes, save
        Axes to draw on, row by row, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Array of :class:`matplotlib.axes.Axes` in µm: (n_sections, n_panels), or (n_panels,) for a
        single section or with ``spots``; for models on pixels (2 × n_sections, n_tiles), or
        (2, n_tiles) with ``spots``.

    Raises
    ------
    KeyError
        If the gene was not attributed, or not in that section or for those spots.
    ValueError
        If there is no such section, the tables differ in spots, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(size_px=600)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata, "texture", n_subtiles=1)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001"], context="spot")
    >>> stp.tl.predict(sdata, model)
    >>> stp.tl.attribute(sdata, model, "morphology_001", n_steps=2)
    >>> stp.pl.attribution(sdata, "morphology_001").shape
    (2,)
    """
    style = SpotStyle(cmap=cmap, vmin=vmin, vmax=vmax, spot_size=spot_size, alpha=alpha)
    opened, predicted = open_table(sdata, table_name), open_table(sdata, key).table
    if not predicted.obs_names.equals(opened.table.obs_names):
        raise ValueError(
            f"tables[{key!r}] and tables[{table_name!r}] have different spots: predict again"
        )
    attributions = _read(predicted, gene)
    sections = _section.sections_to_draw(opened, section, normalized=attributions.normalized)
    attributed = [part for part in sections if attributions.rows[part.rows].any()]
    if section is not None and len(attributed) < len(sections):
        raise KeyError(
            f"{gene!r} was not attributed in all of the sections "
            f"{_validate.listing(part.name for part in sections)}: run stp.tl.attribute first"
        )
    rows = [part.rows[attributions.rows[part.rows]] for part in attributed]
    blocks = [rows_of_section[:_N_TILES].tolist() for rows_of_section in rows]
    if spots is not None:
        blocks = [_section.rows_of_spots(attributions.obs_names, spots, rows)]
    if attributions.tile_um is not None:
        grid = _attributions.draw_tiles(attributions, attributed, blocks, style, axes)
    elif spots is not None:
        grid = _attributions.draw_neighborhoods(attributions, attributed, blocks[0], style, axes)
    else:
        grid = _attributions.draw_context(attributions, attributed, style, axes)
    return _axes.finish(grid, save)


def _read(predicted: AnnData, gene: str) -> Attributions:
    """Attributions of a gene, with their record."""
    records = {
        slot: record
        for slot, record in recorded(predicted, "attribute").items()
        if isinstance(record, dict) and slot in predicted.obsm
    }
    slot = _keys.attribution(gene)
    record = records.get(slot, {})
    # different genes can share a slot, because some characters are replaced in its name
    if record.get("gene") != gene:
        raise KeyError(
            f"{gene!r} was not attributed; attributed genes: "
            f"{_validate.listing(record['gene'] for record in records.values())}: "
            "run stp.tl.attribute first"
        )
    shares = predicted.obsm[slot]
    on_embeddings = isinstance(shares, pd.DataFrame)
    return _attributions.Attributions(
        gene=gene,
        label=f"contribution to the prediction\n({record['units']})",
        obs_names=predicted.obs_names,
        rows=shares["spot"].notna().to_numpy() if on_embeddings else np.diff(shares.indptr) > 0,
        shares=shares,
        neighbor_shares=predicted.obsp.get(slot),
        tile_um=record.get("tile_um"),
        tile_px=record.get("tile_px"),
        normalized=bool(record.get("normalized", False)),
    )
