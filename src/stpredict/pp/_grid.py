"""Spots for a slide that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from spatialdata.models import ShapesModel, TableModel, get_table_keys
from spatialdata.transformations import get_transformation

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _images, _provenance, _sections
from stpredict.pp._tissue._find import tissue

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from spatialdata import SpatialData

LAYOUTS = ("hexagonal", "square")
#: More spots than this are taken for a pitch in the wrong unit.
_MOST_SPOTS = 5_000_000


def grid(
    sdata: SpatialData,
    image: str,
    *,
    pitch_um: float = 100.0,
    diameter_um: float = 55.0,
    layout: Literal["hexagonal", "square"] = "hexagonal",
    section: str | None = None,
    min_tissue_fraction: float = 0.5,
    copy: bool = False,
) -> SpatialData | None:
    """Lay spots on the tissue of a slide that has none, so that a model can predict them.

    The defaults are Visium's geometry; legacy ST is ``pitch_um=200, diameter_um=100,
    layout="square"``. Lay the grid that the model was trained on, so that neighbours are as far
    away as it knows them.

    Parameters
    ----------
    sdata
        Object with the image, whose µm per pixel are known (:func:`stpredict.io.register_um`).
    image
        Name of the image.
    pitch_um
        Distance between neighbouring spots in µm.
    diameter_um
        Diameter of a spot in µm.
    layout
        ``"hexagonal"`` or ``"square"``.
    section
        Name of the new section; by default that of the image without ``"_image"``.
    min_tissue_fraction
        Least share of a spot's area that is tissue: as ``labels["<image>_tissue"]`` shows, else as
        :func:`stpredict.pp.detect_tissue` finds it. Where none is, no spot is laid even at 0.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``shapes[section]``: circles that lie on the image in every coordinate system of
        it; and to ``tables["table"]``, which is made if there is none: one row per spot and no
        genes, ``obs["tissue_fraction"]``, ``obsm["spatial"]`` (n_obs, 2), x and y in pixels, and
        ``uns["stpredict"]["grid"][section]``. Embeddings and graphs of the rows that were there
        are dropped, as they do not cover the new ones.

    Raises
    ------
    KeyError
        If there is no such image.
    ValueError
        If the µm per pixel are not known, the section exists already, the table has genes, no
        spot would lie on tissue, or an option is out of range.

    Examples
    --------
    >>> import stpredict as stp
    >>> slide = stp.datasets.phantom().subset(["S1_image"])  # no spots, no table
    >>> stp.pp.grid(slide, "S1_image", pitch_um=100)  # doctest: +ELLIPSIS
    grid: ... spots on the tissue of S1_image
    >>> slide.tables["table"].n_vars
    0
    """
    sdata = _sections.copy_of(sdata) if copy else sdata
    _sections.require_spatialdata(sdata)
    _validate.positive("pitch_um", pitch_um, unit="µm")
    _validate.positive("diameter_um", diameter_um, unit="µm")
    _validate.one_of("layout", layout, LAYOUTS)
    if not 0 <= min_tissue_fraction <= 1:
        raise ValueError(f"min_tissue_fraction must lie between 0 and 1: {min_tissue_fraction!r}")
    _images.require_images(sdata, [image])
    name = _keys.section_of(image) if section is None else section
    slide = _images.without_spots(sdata, image, name)
    _check_room(sdata, name)

    index, centers = _lattice(slide, pitch_um, layout)
    radius = np.full(len(centers), diameter_um / slide.mpp / 2)
    fraction = tissue(sdata, image).fraction(centers, radius)
    keep = (fraction >= min_tissue_fraction) & (fraction > 0)
    if not keep.any():
        raise ValueError(
            f"no spot of {diameter_um:g} µm every {pitch_um:g} µm would lie on the tissue of "
            f"images[{image!r}] (min_tissue_fraction={min_tissue_fraction:g}; most in one spot: "
            f"{fraction.max(initial=0):.2f}): look at stp.pp.detect_tissue and stp.pl.tissue"
        )
    spots = ShapesModel.parse(
        centers[keep],
        geometry=0,
        radius=radius[keep],
        index=pd.Index([f"{column}x{row}" for column, row in index[keep]]),
        transformations=get_transformation(sdata.images[image], get_all=True),
    )
    table = _joined(sdata, _rows(name, spots, centers[keep], fraction[keep]))
    how = {
        "image": image,
        "pitch_um": float(pitch_um),
        "diameter_um": float(diameter_um),
        "layout": layout,
        "min_tissue_fraction": float(min_tissue_fraction),
    }
    known = {}
    if _keys.TABLE in sdata.tables:
        known = _provenance.recorded(sdata.tables[_keys.TABLE], "grid")
        del sdata.tables[_keys.TABLE]
    sdata.shapes[name] = spots
    sdata.tables[_keys.TABLE] = table
    _provenance.record(table, "grid", **{**known, name: how})
    tell(f"grid: {int(keep.sum())} spots on the tissue of {image}")
    return sdata if copy else None


def _check_room(sdata: SpatialData, section: str) -> None:
    """Require that a section of this name and without counts can be added."""
    if section in sdata:
        raise ValueError(
            f"there is an element {section!r} already: give the new section another name, "
            f"section=…, or remove the old one first: del sdata[{section!r}]"
        )
    table = sdata.tables.get(_keys.TABLE)
    if table is None:
        return
    if table.n_vars:
        raise ValueError(
            f"tables[{_keys.TABLE!r}] has counts of {table.n_vars} genes, which the spots of a "
            "grid do not have: lay the grid in an object of its own, "
            "slide = sdata.subset([image]); stp.pp.grid(slide, image)"
        )
    if section in _sections.section_names(_sections.table_of(sdata)):
        raise ValueError(f"tables[{_keys.TABLE!r}] has rows of a section {section!r} already")


def _lattice(
    slide: _sections.Section, pitch_um: float, layout: str
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Columns and rows (n, 2) of a lattice over the image, and centres (n, 2) in its pixels."""
    pitch = pitch_um / slide.mpp
    apart_y = pitch * np.sqrt(3) / 2 if layout == "hexagonal" else pitch
    height, width = slide.shape_yx
    n_columns, n_rows = int(width // pitch) + 1, int(height // apart_y) + 1
    if n_columns * n_rows > _MOST_SPOTS:
        raise ValueError(
            f"pitch_um={pitch_um:g} would lay {n_columns} × {n_rows} spots over an image of "
            f"{width * slide.mpp:.0f} × {height * slide.mpp:.0f} µm (x × y); the most are "
            f"{_MOST_SPOTS:,}"
        )
    row, column = (axis.ravel() for axis in np.mgrid[:n_rows, :n_columns])
    x, y = column * pitch, row * apart_y
    if layout == "hexagonal":
        x = x + (row % 2) * pitch / 2
    # in the middle of the image
    x += (width - (n_columns - 1) * pitch) / 2
    y += (height - (n_rows - 1) * apart_y) / 2
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return np.column_stack([column, row])[inside], np.column_stack([x, y])[inside]


def _rows(
    section: str,
    spots: GeoDataFrame,
    centers: NDArray[np.float64],
    fraction: NDArray[np.float64],
) -> ad.AnnData:
    obs = pd.DataFrame(index=pd.Index([f"{section}_{spot}" for spot in spots.index]))
    obs[_keys.REGION] = pd.Categorical([section] * len(spots))
    obs[_keys.INSTANCE] = list(spots.index)
    obs[_keys.TISSUE_FRACTION] = fraction
    return ad.AnnData(
        X=sp.csr_matrix((len(spots), 0), dtype=np.float32),
        obs=obs,
        obsm={_keys.SPATIAL: centers},
    )


def _joined(sdata: SpatialData, rows: ad.AnnData) -> ad.AnnData:
    """Table of the rows there were and the new ones."""
    names: dict[str, Any] = {"region_key": _keys.REGION, "instance_key": _keys.INSTANCE}
    if _keys.TABLE not in sdata.tables:
        return TableModel.parse(rows, region=rows.obs[_keys.REGION].iloc[0], **names)
    table = _sections.table_of(sdata)
    _, region_key, instance_key = get_table_keys(table)
    kept = {region_key: _keys.REGION, instance_key: _keys.INSTANCE}
    before = ad.AnnData(
        X=sp.csr_matrix((table.n_obs, 0), dtype=np.float32),
        obs=table.obs.rename(columns=kept),
        obsm={key: table.obsm[key] for key in (_keys.SPATIAL,) if key in table.obsm},
    )
    together = ad.concat([before, rows], join="outer")
    together.obs[_keys.REGION] = together.obs[_keys.REGION].astype("category")
    return TableModel.parse(
        together, region=list(together.obs[_keys.REGION].cat.categories), **names
    )
