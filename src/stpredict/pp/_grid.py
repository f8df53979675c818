"""Place spots on the tissue of a slide without spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from spatialdata.models import ShapesModel, TableModel, get_table_keys
from spatialdata.transformations import get_transformation

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._images import only_image, without_spots
from stpredict._sdata._provenance import record, recorded
from stpredict._sdata._spot_table import SpotTable, copy_of, open_table
from stpredict.pp._tissue._find import tissue_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section

#: More spots than this suggest that the pitch is in the wrong unit.
_MOST_SPOTS = 5_000_000


@checked
def grid(
    sdata: SpatialData,
    image: str | None = None,
    *,
    pitch_um: float = 100.0,
    diameter_um: float = 55.0,
    layout: Literal["hexagonal", "square"] = "hexagonal",
    section: str | None = None,
    min_tissue_fraction: float = 0.5,
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Place spots on the tissue of a slide without spots, so that a model can predict them.

    Use the geometry of the training data. The defaults are Visium's; legacy ST is ``pitch_um=200,
    diameter_um=100, layout="square"``.

    Parameters
    ----------
    sdata
        Slide, for example of :func:`stpredict.io.read_slide`, or a ``WSIData``, whose slide is
        attached lazily.
    image
        Name of an image with known µm per pixel (:func:`stpredict.io.register_um`). May be left out
        if the object has only one.
    pitch_um, diameter_um
        Distance between neighbouring spots, and diameter of a spot, in µm.
    layout
        Layout of the spots.
    section
        Name of the new section, by default that of the image without ``"_image"``.
    min_tissue_fraction
        Minimum share of a spot's area that is tissue (:func:`stpredict.pp.detect_tissue`, which is
        run if needed). Spots without any tissue are left out even at 0.
    table_name, copy
        Name of the table, which is created if needed, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``shapes[section]``, circles in all coordinate systems of the image, and to
        ``tables[table_name]``: one row per spot and no genes, ``obs["tissue_fraction"]``,
        ``obsm["spatial"]`` (n_obs, 2), x and y in pixels, and
        ``uns["stpredict"]["grid"][section]``. Drops embeddings and graphs of existing rows.

    Raises
    ------
    KeyError
        If there is no such image.
    ValueError
        If the object has several images and none is named, the µm per pixel are unknown, the
        section exists, the table has genes, or no spot fits.

    Examples
    --------
    >>> import stpredict as stp
    >>> slide = stp.datasets.phantom().subset(["S1_image"])  # no spots, no table
    >>> stp.pp.grid(slide, pitch_um=100)
    """
    _validate.positive("pitch_um", pitch_um, unit="µm")
    _validate.positive("diameter_um", diameter_um, unit="µm")
    _validate.share("min_tissue_fraction", min_tissue_fraction)
    image = only_image(sdata, image, scaled=True)
    sdata = copy_of(sdata) if copy else sdata
    name = _validate.slot_name("section", _keys.section_of(image) if section is None else section)
    slide = without_spots(sdata, image, name)
    # slides are added one by one to the same table
    previous = open_table(sdata, table_name) if table_name in sdata.tables else None
    _check_new_section(sdata, name, previous)
    index, centers = _lattice(slide, pitch_um, layout)
    radius = np.full(len(centers), diameter_um / slide.mpp / 2)
    fraction = tissue_mask(sdata, image).fraction(centers, radius)
    # also at min_tissue_fraction=0, spots on bare glass are useless
    keep = (fraction >= min_tissue_fraction) & (fraction > 0)
    if not keep.any():
        raise ValueError(
            f"no spot of diameter_um={diameter_um:g} every pitch_um={pitch_um:g} lies on the "
            f"tissue of images[{image!r}]; the maximum share is {fraction.max(initial=0):.2f}. "
            "Check it with stp.pp.detect_tissue and stp.pl.tissue"
        )
    instances = [f"{column}x{row}" for column, row in index[keep]]
    shapes = ShapesModel.parse(
        centers[keep],
        geometry=0,
        radius=radius[keep],
        index=pd.Index(instances),
        transformations=get_transformation(sdata.images[image], get_all=True),
    )
    obs = pd.DataFrame(index=[f"{name}_{instance}" for instance in instances])
    obs[_keys.REGION] = pd.Categorical([name] * len(obs))
    obs[_keys.INSTANCE] = instances
    obs[_keys.TISSUE_FRACTION] = fraction[keep]
    table = _rows(obs, centers[keep])
    records: dict[str, Any] = {}
    if previous is not None:
        _, region_key, instance_key = get_table_keys(previous.table)
        names = {region_key: _keys.REGION, instance_key: _keys.INSTANCE}
        positions = previous.table.obsm.get(_keys.SPATIAL)
        existing = _rows(previous.table.obs.rename(columns=names), positions)
        table = ad.concat([existing, table], join="outer")
        table.obs[_keys.REGION] = table.obs[_keys.REGION].astype("category")
        records = recorded(previous.table, "grid")
        del sdata.tables[table_name]  # SpatialData warns if an element is overwritten
    sdata.shapes[name] = shapes
    regions = list(table.obs[_keys.REGION].cat.categories)
    sdata.tables[table_name] = TableModel.parse(
        table, region=regions, region_key=_keys.REGION, instance_key=_keys.INSTANCE
    )
    lengths = {"pitch_um": float(pitch_um), "diameter_um": float(diameter_um)}
    options = {"layout": layout, "min_tissue_fraction": float(min_tissue_fraction)}
    records[name] = {"image": image, **lengths, **options}
    record(sdata.tables[table_name], "grid", **records)
    info(f"grid: {int(keep.sum())} spots on the tissue of {image}")
    return sdata if copy else None


def _check_new_section(sdata: SpatialData, section: str, previous: SpotTable | None) -> None:
    """Require that a section of this name and without counts can be added."""
    if section in sdata:
        raise ValueError(f"the object has an element {section!r} already: give another section=")
    if previous is not None and previous.table.n_vars:
        raise ValueError(
            f"tables[{previous.name!r}] has counts of {previous.table.n_vars} genes: use a "
            "separate object, slide = sdata.subset([image]); stp.pp.grid(slide, image)"
        )
    if previous is not None and section in previous.section_names:
        raise ValueError(f"tables[{previous.name!r}] has rows of a section {section!r} already")


def _lattice(
    slide: Section, pitch_um: float, layout: str
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Columns and rows (n, 2) of a lattice over the image, and centres (n, 2) in its pixels."""
    pitch = pitch_um / slide.mpp
    row_pitch = pitch * np.sqrt(3) / 2 if layout == "hexagonal" else pitch
    height, width = slide.shape_yx
    n_columns, n_rows = int(width // pitch) + 1, int(height // row_pitch) + 1
    if n_columns * n_rows > _MOST_SPOTS:
        raise ValueError(
            f"pitch_um={pitch_um:g} would place {n_columns} × {n_rows} spots on "
            f"{width * slide.mpp:.0f} × {height * slide.mpp:.0f} µm; the maximum is {_MOST_SPOTS:,}"
        )
    row, column = (axis.ravel() for axis in np.mgrid[:n_rows, :n_columns])
    x, y = column * pitch, row * row_pitch
    if layout == "hexagonal":
        x = x + (row % 2) * pitch / 2  # every second row is shifted by half a pitch
    # centre the lattice in the image
    x += (width - (n_columns - 1) * pitch) / 2
    y += (height - (n_rows - 1) * row_pitch) / 2
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return np.column_stack([column, row])[inside], np.column_stack([x, y])[inside]


def _rows(obs: pd.DataFrame, positions: Any) -> ad.AnnData:
    """Rows without genes."""
    counts = sp.csr_matrix((len(obs), 0), dtype=np.float32)
    obsm = {} if positions is None else {_keys.SPATIAL: positions}
    return ad.AnnData(counts, obs=obs, obsm=obsm)
