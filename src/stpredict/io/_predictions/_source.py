"""Predictions of other tools as they were written: files, data frames, AnnData, slides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from spatialdata import SpatialData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys
from stpredict._sdata import _elements
from stpredict._sdata._spot_table import require_key
from stpredict.io._shared._files import number_columns, reading, require_entries, require_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable

#: Endings of text files, and what separates their columns.
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


@dataclass(frozen=True, eq=False)
class Source:
    """Predictions of another tool, one row per spot or tile."""

    data: ad.AnnData | pd.DataFrame
    positions: NDArray[np.float64] | None = None  # (n, 2) x and y
    mpp: float | None = None  # µm per unit of the positions; None: pixels of the section's image

    @property
    def names(self) -> pd.Index:
        """Names of the rows."""
        names = self.data.obs_names if isinstance(self.data, ad.AnnData) else self.data.index
        return names.astype(str)

    @property
    def var(self) -> pd.DataFrame:
        """Names of the columns, and what else is known about the genes."""
        if isinstance(self.data, ad.AnnData):
            return self.data.var
        return pd.DataFrame(index=self.data.columns.astype(str))

    def block(self, columns: NDArray[np.intp]) -> NDArray[np.float64]:
        """Values of some columns, (n, n_columns)."""
        if isinstance(self.data, pd.DataFrame):
            frame = self.data.iloc[:, columns]
            return number_columns("the predictions", frame, list(frame))
        values: Any = self.data.X[:, columns]
        return np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float64)


@dataclass(frozen=True)
class Layout:
    """What the caller knows about the form of the predictions."""

    key: str | None = None  # table of a SpatialData
    x: str | None = None  # columns with the positions
    y: str | None = None
    mpp: float | None = None

    def open(self, predictions: Any, spots: SpotTable, section: Section | None) -> Source:
        """Open the predictions of one section, or of all if none is named."""
        if isinstance(predictions, SpatialData):
            return self._of_slide(predictions, spots, section)
        if self.key is not None:
            kind = type(predictions).__name__
            raise ValueError(
                f"key={self.key!r} is a table of a SpatialData, not of {kind}: omit it"
            )
        if isinstance(predictions, str | Path):
            predictions = _read(Path(predictions))
        if isinstance(predictions, ad.AnnData):
            return self._of_table(predictions)
        if not isinstance(predictions, pd.DataFrame):
            raise TypeError(
                "predictions must be a path, a DataFrame, an AnnData, a SpatialData or a "
                f"dictionary of these, not {type(predictions).__name__}"
            )
        return self._of_frame(predictions, spots)

    def _of_frame(self, frame: pd.DataFrame, spots: SpotTable) -> Source:
        if self.x is not None and self.y is not None:
            positions = number_columns("the predictions", frame, [self.x, self.y])
            return Source(frame.drop(columns=[self.x, self.y]), positions, self.mpp)
        # matrices of R often have a column per spot
        names = {*spots.table.obs_names, *_instances(spots)}
        is_transposed = not names.intersection(map(str, frame.index))
        if is_transposed and names.intersection(map(str, frame.columns)):
            frame = frame.T
        return Source(frame)

    def _of_table(self, table: ad.AnnData) -> Source:
        if self.x is not None and self.y is not None:
            require_entries("obs", table.obs, [self.x, self.y], error=KeyError)
            return Source(table, number_columns("obs", table.obs, [self.x, self.y]), self.mpp)
        if _keys.SPATIAL in table.obsm:
            return Source(table, np.asarray(table.obsm[_keys.SPATIAL], float)[:, :2], self.mpp)
        return Source(table)

    def _of_slide(self, slide: SpatialData, spots: SpotTable, section: Section | None) -> Source:
        """A table of tiles, such as LazySlide's, whose positions are those of its shapes."""
        if self.key is None or self.x is not None:
            raise ValueError(
                "predictions in a SpatialData have the positions of its shapes: give key=, the "
                "name of its table, and neither x= nor y="
            )
        require_key(self.key, slide.tables, what="tables")
        table = slide.tables[self.key]
        mpp = self.mpp
        if mpp is None and hasattr(slide, "properties"):  # a WSIData
            mpp = slide.properties.mpp
        if TableModel.ATTRS_KEY not in table.uns:  # as omicverse writes it
            return replace(self._of_table(table), mpp=mpp)
        regions = get_table_keys(table)[0]
        names = [regions] if isinstance(regions, str) else list(regions)
        if section is None or len(names) != 1:
            return Source(table)
        shapes = _elements.select(
            slide.shapes[names[0]], table.obs[get_table_keys(table)[2]].to_numpy(), names[0]
        )
        if slide.images.get(section.image) is spots.sdata.images[section.image]:
            return Source(table, _elements.centers_px(slide, names[0], section.image, shapes))
        centroids = shapes.geometry.centroid
        return Source(table, np.column_stack([centroids.x, centroids.y]), mpp)


def _instances(spots: SpotTable) -> NDArray[np.str_]:
    return spots.table.obs[get_table_keys(spots.table)[2]].astype(str).to_numpy()


def _read(path: Path) -> ad.AnnData | pd.DataFrame:
    """Read an AnnData or a table of text."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in (*_SEPARATORS, ".h5ad"):
        raise ValueError(
            f"predictions={str(path)!r} must end in .csv, .tsv, .txt (also .gz) or .h5ad: read "
            "other formats yourself, and give the DataFrame or AnnData"
        )
    require_file(path)
    with reading(path):
        if suffix == ".h5ad":
            return ad.read_h5ad(path)
        frame = pd.read_csv(path, sep=_SEPARATORS[suffix], dtype={0: str})
    first = frame.columns[0] if len(frame.columns) else ""
    # names of rows have no heading, or are no numbers
    if str(first).startswith("Unnamed") or not pd.api.types.is_numeric_dtype(frame[first]):
        frame = frame.set_index(first)
    return frame
