"""A SpatialData, opened once: one table, its sections and its graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from pandas.api.types import is_bool_dtype
from sklearn.neighbors import KDTree
from spatialdata import SpatialData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys, _validate
from stpredict._sdata._elements import image_name
from stpredict._sdata._provenance import read_steps
from stpredict._sdata._sections import Section, on_normalized_images, read_section
from stpredict._sdata._wsi import attach_slide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from stpredict._sdata._recorded_steps import RecordedSteps
    from stpredict._sdata._reference_stain import ReferenceStain
    from stpredict.targets import Standard

#: Functions that write layers and tables of these names, for error messages.
_WRITTEN_BY = {
    _keys.LOG1P: "stp.pp.normalize",
    _keys.RANKS: "stp.pp.rank_expression",
    _keys.SMOOTHED: "stp.pp.smooth",
    _keys.PREDICTED: "stp.tl.predict",
    _keys.OUT_OF_FOLD: "stp.tl.cross_validate",
}


@dataclass(frozen=True, eq=False)
class SpotTable:
    """A table of spots with its sections; each public function opens one, by `open_table`."""

    sdata: SpatialData  # the object that the table belongs to
    name: str
    table: AnnData
    # by slot and section, where the rows are a part of a section: the features' mean and standard
    # deviation in the whole section
    section_scalers: Mapping[str, Mapping[str, Standard]] = field(default_factory=dict)

    @property
    def steps(self) -> RecordedSteps:
        """How embeddings, graph and layers were made."""
        return read_steps(self.table)

    @cached_property
    def section_of_row(self) -> NDArray[np.str_]:
        """Name of the section of each row, (n_obs,)."""
        _, region_key, _ = get_table_keys(self.table)
        return self.table.obs[region_key].astype(str).to_numpy()

    @cached_property
    def section_names(self) -> list[str]:
        """Names of the sections, in the order of the rows."""
        return list(dict.fromkeys(self.section_of_row))

    @cached_property
    def section_rows(self) -> dict[str, NDArray[np.intp]]:
        """Rows of each section, by its name."""
        return {name: np.flatnonzero(self.section_of_row == name) for name in self.section_names}

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections on their raw images; every link between elements is checked."""
        regions, _, instance_key = get_table_keys(self.table)
        for name in [regions] if isinstance(regions, str) else regions:
            if name not in self.section_names:
                raise ValueError(f"section {name!r} has no rows in the table that annotates it")
        instances = self.table.obs[instance_key].to_numpy()
        return tuple(
            read_section(self.sdata, name, rows, instances)
            for name, rows in self.section_rows.items()
        )

    @property  # not cached: `pp.normalize_stain` writes the images that this reads
    def normalized_sections(self) -> tuple[Section, ...]:
        """The sections on the images of `pp.normalize_stain` where it was run, else raw."""
        return on_normalized_images(self.sdata, self.sections, self.steps.normalize_stain)

    @property
    def stain(self) -> ReferenceStain | None:
        """Stain that the normalised images were mapped to; None if all images are raw."""
        step = self.steps.normalize_stain
        is_normalized = any(section.normalized for section in self.normalized_sections)
        return step.reference if step is not None and is_normalized else None

    @property
    def graph(self) -> sp.csr_matrix:
        """Neighbourhood graph, (n_obs, n_obs) CSR."""
        key = _keys.CONNECTIVITIES
        if key not in self.table.obsp:
            raise KeyError(f"no neighbourhood graph obsp[{key!r}]: run stp.pp.neighbors first")
        graph = sp.csr_matrix(self.table.obsp[key])  # other tools write dense arrays
        _validate.finite(graph, what=f"obsp[{key!r}]")
        return graph

    @cached_property
    def positions_um(self) -> NDArray[np.float64]:
        """Position of each row in its section, (n_obs, 2), x and y in µm."""
        positions = np.empty((self.table.n_obs, 2))
        for section in self.sections:
            positions[section.rows] = section.centers_um
        return positions

    @property
    def spatial_order(self) -> NDArray[np.int64]:
        """All rows, with neighbours in space close in order."""
        by_section = [
            section.rows[np.asarray(KDTree(section.centers_um).get_arrays()[1])]
            for section in self.sections
        ]
        return np.concatenate(by_section).astype(np.int64)

    @property
    def selected_genes(self) -> list[str]:
        """Genes that `pp.select_genes` marked; empty if it was not run."""
        if _keys.SELECTED not in self.table.var:
            return []
        selected = self.table.var[_keys.SELECTED]
        # numbers would be read as positions
        if not is_bool_dtype(selected.dtype) or selected.isna().any():
            raise ValueError(
                f"var[{_keys.SELECTED!r}] must hold booleans without missing values, not "
                f"{selected.dtype}: run stp.pp.select_genes, or convert it with .astype(bool)"
            )
        return self.table.var_names[selected.to_numpy(dtype=bool)].tolist()

    def section(self, name: str) -> Section:
        """One section by name."""
        _validate.one_of("section", name, self.section_names)
        return self.sections[self.section_names.index(name)]

    @property
    def counts(self) -> Any:
        """Counts in X, which must be finite and not negative."""
        _validate.counts(self.table.X, what="counts in X")
        return _at_least_float32(self.table.X)

    def layer(self, name: str | None) -> Any:
        """A layer, or X for None; its values must be finite."""
        if name is None:
            values, label = self.table.X, "X"
        else:
            require_key(name, layer_names(self.table), what=f"tables[{self.name!r}].layers")
            values, label = self.table.layers[name], f"layers[{name!r}]"
        _validate.finite(values, what=label)
        return _at_least_float32(values)

    def rows(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> AnnData:
        """Copy some rows as a table that annotates the shapes of their sections."""
        _, region_key, instance_key = get_table_keys(self.table)
        table = self.table[rows].copy()
        del table.uns[TableModel.ATTRS_KEY]
        table.obs[region_key] = table.obs[region_key].astype(str).astype("category")
        names = list(dict.fromkeys(table.obs[region_key]))
        return TableModel.parse(table, names, region_key, instance_key)

    def subset(self, rows: NDArray[np.intp]) -> SpotTable:
        """Copy some rows with their sections and shapes; images, which are lazy, are shared."""
        table = self.rows(np.sort(rows))
        names = list(dict.fromkeys(table.obs[get_table_keys(table)[1]]))
        images = {image_name(self.sdata, name) for name in names}
        images |= {_keys.normalized(image) for image in images}
        labels = {_keys.tissue(image) for image in images}
        elements = {
            **{name: image for name, image in self.sdata.images.items() if name in images},
            **{name: self.sdata.shapes[name].copy() for name in names},
            **{name: label for name, label in self.sdata.labels.items() if name in labels},
            self.name: table,
        }
        sdata = SpatialData.init_from_elements(elements, attrs=dict(self.sdata.attrs))
        return SpotTable(sdata, self.name, sdata.tables[self.name])

    def copy(self) -> SpotTable:
        """Copy tables and shapes; images and labels are shared."""
        return open_table(self.sdata, self.name, copy=True)

    def add_table(self, name: str, table: AnnData) -> None:
        """Write a table of the same rows and shapes, with positions and neighbourhood graph."""
        slots = {"obsm": [_keys.SPATIAL], "obsp": [_keys.CONNECTIVITIES, _keys.DISTANCES]}
        for slot, keys in slots.items():
            own = getattr(self.table, slot)
            getattr(table, slot).update({key: own[key].copy() for key in keys if key in own})
        if "spatial_neighbors" in self.table.uns:
            table.uns["spatial_neighbors"] = dict(self.table.uns["spatial_neighbors"])
        self.sdata.tables[name] = TableModel.parse(table, *get_table_keys(self.table))


def open_table(sdata: SpatialData, name: str = _keys.TABLE, *, copy: bool = False) -> SpotTable:
    """Open a table that annotates shapes, or that of a copy of the object."""
    attach_slide(sdata)
    require_key(name, sdata.tables, what="tables")
    table = sdata.tables[name]
    if TableModel.ATTRS_KEY not in table.uns:
        raise ValueError(
            f"tables[{name!r}] annotates no shapes: use spatialdata.models.TableModel.parse"
        )
    if not table.var_names.is_unique:
        _validate.unique_names(table.var_names, what=f"gene names of tables[{name!r}]")
    if table.n_obs == 0:
        raise ValueError(f"tables[{name!r}] has no rows")
    sdata = copy_of(sdata) if copy else sdata
    return SpotTable(sdata, name, sdata.tables[name])


def _at_least_float32(values: Any) -> Any:
    """Values in a type that scipy and scanpy can compute with."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def layer_names(table: AnnData) -> list[str]:
    """Names of the layers without None, by which anndata 0.13 means X."""
    return [name for name in table.layers if name is not None]


def require_key(key: str, available: Iterable[str], *, what: str) -> None:
    """Require a table or layer; the message names the function that writes it."""
    available = list(available)
    if key not in available:
        remedy = f": run {_WRITTEN_BY[key]} first" if key in _WRITTEN_BY else ""
        raise KeyError(f"{what} has no {key!r}; available: {_validate.listing(available)}{remedy}")


def copy_of(sdata: SpatialData) -> SpatialData:
    """Copy tables and shapes; images and labels, which are lazy and never changed, are shared."""
    attach_slide(sdata)
    elements: dict[str, Any] = {**sdata.images, **sdata.labels, **sdata.points}
    elements |= {name: shapes.copy() for name, shapes in sdata.shapes.items()}
    elements |= {name: table.copy() for name, table in sdata.tables.items()}
    return SpatialData.init_from_elements(elements, attrs=dict(sdata.attrs))
