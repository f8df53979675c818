"""The boundary between SpatialData and arrays.

Everything below `pp`, `tl` and `pl` works on `Section` objects: a lazy image pyramid, the centres
of the spots in its pixels, µm per pixel, and the rows of the table that belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys, _validate
from stpredict._sdata import _provenance
from stpredict._sdata._elements import (
    affine_to_um,
    copy_of,
    image_name,
    levels_of,
    radius_of,
    require_spatialdata,
    scale_of,
    select,
)

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from stpredict._sdata._steps import NormalizeStainStep

__all__ = ["Section", "copy_of", "require_spatialdata"]

#: Functions that write the layers of these names.
_MADE_BY = {_keys.LOG1P: "normalize", _keys.RANKS: "rank_expression", _keys.SMOOTHED: "smooth"}
#: Functions that write the tables of these names.
_WRITES = {_keys.PREDICTED: "predict", _keys.OUT_OF_FOLD: "cross_validate"}


@dataclass(frozen=True)
class Section:
    """One piece of tissue, as arrays.

    Attributes
    ----------
    name
        Name of the shapes element, and of the region in the table.
    image
        Name of the image element that the levels are of.
    levels
        Image pyramid, finest first, each lazy (3, y, x) uint8.
    mpp
        µm per pixel of the finest level.
    rows
        Positions of the section's rows in the table, (n,) int.
    centers
        Centres of the spots, (n, 2) float, x and y in pixels of the finest level.
    radius_um
        Radius of each spot in µm, (n,); of a polygon, that of the circle of equal area.
    normalized
        Whether the levels are those of `pp.normalize_stain`.
    """

    name: str
    image: str
    levels: tuple[da.Array, ...]
    mpp: float
    rows: NDArray[np.intp]
    centers: NDArray[np.float64]
    radius_um: NDArray[np.float64]
    normalized: bool = False

    @property
    def centers_um(self) -> NDArray[np.float64]:
        """Centres of the spots in µm from the corner of the image."""
        return self.centers * self.mpp

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width of the finest level in pixels."""
        return self.levels[0].shape[1], self.levels[0].shape[2]


def table_of(sdata: SpatialData, name: str = _keys.TABLE) -> AnnData:
    """Return a table that annotates shapes."""
    require_spatialdata(sdata)
    if name not in sdata.tables:
        hint = f"run stp.tl.{_WRITES[name]} first" if name in _WRITES else "see stp.io"
        raise KeyError(
            f"there is no tables[{name!r}]; tables: {_validate.listing(sdata.tables)}: {hint}"
        )
    table = sdata.tables[name]
    if TableModel.ATTRS_KEY not in table.uns:
        raise ValueError(
            f"tables[{name!r}] does not say which shapes it annotates: "
            "spatialdata.models.TableModel.parse(table, region=…, region_key=…, instance_key=…)"
        )
    if table.n_obs == 0:
        raise ValueError(f"tables[{name!r}] has no rows")
    return table


def region_of(table: AnnData) -> NDArray[np.str_]:
    """Section of each row of the table."""
    _, region_key, _ = get_table_keys(table)
    return table.obs[region_key].astype(str).to_numpy()


def instance_key(table: AnnData) -> str:
    """Column of ``obs`` with the spot ids."""
    return str(get_table_keys(table)[2])


def layer_of(table: AnnData, layer: str | None) -> Any:
    """Return a layer, or X for None, which must be finite."""
    if layer is None:
        _validate.finite(table.X, what="X")
        return table.X
    if layer not in table.layers:
        named = [name for name in table.layers if name is not None]  # anndata 0.13: None is X
        raise KeyError(
            f"there is no layers[{layer!r}]; layers: {_validate.listing(named)}"
            + (f": run stp.pp.{_MADE_BY[layer]} first" if layer in _MADE_BY else "")
        )
    values = table.layers[layer]
    _validate.finite(values, what=f"layers[{layer!r}]")
    return values


def section_names(table: AnnData) -> list[str]:
    """Names of the sections of a table, in the order of its rows."""
    return list(dict.fromkeys(region_of(table)))


def sections(
    sdata: SpatialData, table: AnnData | None = None, *, normalized: bool = False
) -> list[Section]:
    """Return all sections that a table annotates, after checking every link between them.

    With ``normalized=True``, their levels are those of the images of `pp.normalize_stain` where
    it was run, and the sections' own where it was not.
    """
    table = table_of(sdata) if table is None else table
    regions, _, instance_key = get_table_keys(table)
    found = section_names(table)
    for name in [regions] if isinstance(regions, str) else regions:
        if name not in found:
            raise ValueError(f"section {name!r} is empty: the table names it but has no rows of it")
    region = region_of(table)
    result = [
        read_section(
            sdata, name, np.flatnonzero(region == name), table.obs[instance_key].to_numpy()
        )
        for name in found
    ]
    return _normalized(sdata, table, result) if normalized else result


def stain_of(table: AnnData, found: list[Section]) -> dict[str, Any] | None:
    """The reference that the sections' levels are normalised to; None if they are raw."""
    if not any(section.normalized for section in found):
        return None
    return dict(_provenance.recorded(table, "normalize_stain")["reference"])


def _normalized(sdata: SpatialData, table: AnnData, raw: list[Section]) -> list[Section]:
    """The same sections on their normalised images: on all of them, or on none."""
    names = {section.name: _keys.normalized(section.image) for section in raw}
    known = _provenance.recorded(table, "normalize_stain")
    there = [section for section, image in names.items() if image in sdata.images]
    if not there:
        return raw
    again = 'run stp.pp.normalize_stain(sdata) again, or go back to raw: del sdata.images["…"] for'
    images = _validate.listing(names[section] for section in there)
    if "reference" not in known:
        raise ValueError(
            'uns["stpredict"] does not tell how the stain of these images was normalised, or they '
            f"were normalised to different references: {again} {images}"
        )
    lacking = set(names) - set(there) - set(known.get("skipped", ()))
    if lacking:
        raise ValueError(
            f"sections {_validate.listing(sorted(lacking))} have no image of normalised stain, "
            f"but {_validate.listing(there)} have: {again} {images}"
        )
    return [
        replace(
            section,
            image=names[section.name],
            levels=levels_of(sdata, names[section.name]),
            normalized=True,
        )
        if section.name in there
        else section
        for section in raw
    ]


def read_section(
    sdata: SpatialData, name: str, rows: NDArray[np.intp], instances: NDArray[Any]
) -> Section:
    """Read one section: its image, spots and scale; ``instances`` are those of all rows."""
    if name not in sdata.shapes:
        raise ValueError(
            f"the table annotates {name!r}, but there are no such shapes; shapes: "
            f"{_validate.listing(sdata.shapes)}"
        )
    image = image_name(sdata, name)
    levels = levels_of(sdata, image)
    shapes = select(sdata.shapes[name], instances[rows], name)
    image_to_um = affine_to_um(sdata.images[image], name)
    shapes_to_um = affine_to_um(sdata.shapes[name], name)
    mpp = scale_of(image_to_um, what=f"images[{image!r}]")
    centroids = shapes.geometry.centroid
    points = np.column_stack([centroids.x, centroids.y, np.ones(len(shapes))])
    centers = points @ (np.linalg.inv(image_to_um) @ shapes_to_um).T
    return Section(
        name=name,
        image=image,
        levels=levels,
        mpp=mpp,
        rows=rows,
        centers=np.ascontiguousarray(centers[:, :2]),
        radius_um=radius_of(shapes) * scale_of(shapes_to_um, what=f"shapes[{name!r}]"),
    )


def on_normalized_images(
    sdata: SpatialData, sections: tuple[Section, ...], step: NormalizeStainStep | None
) -> tuple[Section, ...]:
    """The same sections on their normalised images: on all of them, or on none."""
    names = {section.name: _keys.normalized(section.image) for section in sections}
    normalized = [section for section, image in names.items() if image in sdata.images]
    if not normalized:
        return sections
    remedy = "run stp.pp.normalize_stain again, or delete these images"
    images = _validate.listing(names[section] for section in normalized)
    if step is None:
        raise ValueError(f"no reference stain is recorded for the images {images}: {remedy}")
    missing = set(names) - set(normalized) - set(step.skipped)
    if missing:
        raise ValueError(
            f"sections {_validate.listing(sorted(missing))} have no normalised image, but "
            f"{_validate.listing(normalized)} have: {remedy} ({images})"
        )
    return tuple(
        replace(
            section,
            image=names[section.name],
            levels=levels_of(sdata, names[section.name]),
            normalized=True,
        )
        if section.name in normalized
        else section
        for section in sections
    )
