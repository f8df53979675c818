"""Results of a slide on disk, written while they are computed, and moved into place at the end."""

from __future__ import annotations

import glob
import logging
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import spatialdata as sd
import zarr
from anndata import AnnData
from anndata.io import read_elem
from filelock import FileLock, Timeout
from spatialdata.models import Image2DModel, TableModel, get_table_keys
from spatialdata.transformations import Scale, Sequence, get_transformation

from stpredict import _keys
from stpredict._log import quiet, writing_quietly
from stpredict.io._shared._small import small_image
from stpredict.io._to_anndata import to_anndata
from stpredict.models._stack import is_ranked
from stpredict.tl._prediction._table import Predictions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._prediction._genes import GeneSelection

_LOCK, _ZARR, _H5AD = "lock", "result.zarr", "result.h5ad"
#: Numbers in a chunk of predictions: 8 MB.
_CHUNK = 2_000_000
#: Seconds after which a folder without a lock is that of a killed run.
_NEW = 60


class Store:
    """Files of the result of one slide, in a hidden folder next to where they are moved."""

    def __init__(self, folder: Path, out: Path, name: str) -> None:
        self.folder = folder
        self.final = {_ZARR: out / f"{name}.zarr", _H5AD: out / f"{name}.h5ad"}

    def collect(
        self,
        blocks: Iterator[Predictions],
        selection: GeneSelection,
        sections: NDArray[np.str_],
        *,
        prefix: str = "",
    ) -> Predictions:
        """Write predictions block by block, and open them lazily; the prefix is that of files."""
        n_obs = len(sections)
        arrays: dict[str, zarr.Array[Any]] = {}
        familiarity = np.empty(n_obs, dtype=np.float32)
        is_calibrated = False
        for block in blocks:
            for name in ("values", "spread"):
                part = getattr(block, name)
                if part is None:
                    continue
                if name not in arrays:
                    arrays[name] = self._array(prefix + name, (n_obs, part.shape[1]))
                arrays[name].oindex[block.rows, :] = part
            if block.familiarity is not None:
                familiarity[block.rows], is_calibrated = block.familiarity, True
        if is_ranked(selection.predictor):
            arrays["values"] = self._rank(arrays["values"], selection, sections)
        opened = {name: da.from_zarr(array) for name, array in arrays.items()}
        return Predictions(
            np.arange(n_obs),
            opened["values"],
            opened.get("spread"),
            familiarity if is_calibrated else None,
        )

    def _rank(
        self, by_base: zarr.Array[Any], selection: GeneSelection, sections: NDArray[np.str_]
    ) -> zarr.Array[Any]:
        """Values of a ranked stack, some genes at a time."""
        n_obs, n_genes = len(sections), len(selection.described.genes)
        n_bases = by_base.shape[1] // n_genes
        values = self._array("ranked", (n_obs, n_genes))
        at_once = max(1, _CHUNK // (n_obs * n_bases))
        for start in range(0, n_genes, at_once):
            genes = np.arange(start, min(start + at_once, n_genes))
            columns = (np.arange(n_bases)[:, None] * n_genes + genes).ravel()
            part = np.asarray(by_base.oindex[:, columns])
            values[:, genes[0] : genes[-1] + 1] = selection.rank(part, sections, genes)
        return values

    def _array(self, name: str, shape: tuple[int, int]) -> zarr.Array[Any]:
        rows = int(np.clip(_CHUNK // shape[1], 1, shape[0]))
        # not compressed: blocks of spots are written to parts of chunks
        return zarr.create_array(
            self.folder / name, shape=shape, chunks=(rows, shape[1]), dtype="f4", compressors=None
        )

    def finish(self, spots: SpotTable, key: str, *others: str) -> SpatialData:
        """Write the tables of the result, the first also as .h5ad, and open what was written."""
        with writing_quietly():
            _with_small_image(spots, (key, *others)).write(self.folder / _ZARR)
        to_anndata(spots.sdata, table_name=key).write_h5ad(self.folder / _H5AD)
        self.move()
        return read_result(self.final[_ZARR])

    def move(self) -> None:
        """Move the files into place; the store first, so that one without it is complete."""
        for file, target in self.final.items():
            source = self.folder / file
            if not source.exists():  # moved before the run was killed
                continue
            if target.is_dir():  # of a run at the same time
                target.rename(self.folder / "replaced")
            source.replace(target)


@contextmanager
def open_store(out: Path, name: str) -> Iterator[Store]:
    """Folder for the results of a slide; nothing of it remains if a step fails."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"out={str(out)!r} is a file: give a folder")
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    _finish_killed_runs(out, name)
    existing = [path for path in Store(out, out, name).final.values() if path.exists()]
    if existing:
        raise FileExistsError(f"{existing[0]} exists: delete it, or give another out=")
    # "~" is in no name of a slide
    folder = Path(tempfile.mkdtemp(prefix=f".{name}~", dir=out))
    lock = FileLock(folder / _LOCK)
    try:
        with lock:
            yield Store(folder, out, name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # not empty after success
                out.rmdir()


def _finish_killed_runs(out: Path, name: str) -> None:
    """Remove the folders of killed runs, after moving results that were complete."""
    for path in out.glob(f".{glob.escape(name)}~*"):
        # a folder may be younger than its lock
        if not (path / _LOCK).exists() and time.time() - path.stat().st_mtime < _NEW:
            continue
        with suppress(Timeout), FileLock(path / _LOCK, timeout=0):  # else another run uses it
            if (path / _H5AD).exists() and not (path / _ZARR).exists():
                Store(path, out, name).move()
            shutil.rmtree(path, ignore_errors=True)


def _with_small_image(spots: SpotTable, keys: tuple[str, ...]) -> SpatialData:
    """The slide with some tables, and with a small image instead of its pyramid."""
    section = spots.sections[0]
    pixels, factor = small_image(section)
    scale = Scale([factor, factor], axes=("x", "y"))
    systems = get_transformation(spots.sdata.images[section.image], get_all=True)
    image = Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        transformations={name: Sequence([scale, path]) for name, path in systems.items()},
    )
    tables = {name: spots.sdata.tables[name] for name in (spots.name, *keys)}
    elements: dict[str, Any] = {section.image: image}
    for table in tables.values():
        regions = get_table_keys(table)[0]
        names = [regions] if isinstance(regions, str) else regions
        elements |= {name: spots.sdata.shapes[name] for name in names}
    tissue = _keys.tissue(section.image)
    if tissue in spots.sdata.labels:
        elements[tissue] = spots.sdata.labels[tissue]
    return sd.SpatialData.init_from_elements({**elements, **tables})


def read_result(path: Path) -> SpatialData:
    """Open a stored result; matrices stay on disk."""
    # ome-zarr reports that labels have no image of the same name
    with quiet("ome_zarr.reader", least=logging.ERROR):
        result = sd.read_zarr(path, selection=("images", "labels", "shapes"))
    tables = zarr.open_group(path / "tables", mode="r")
    for name, group in tables.groups():
        result.tables[name] = _lazy_table(group)
    return result


def _lazy_table(group: zarr.Group) -> AnnData:
    stored: Any = group["layers"]
    layers = {name: _lazy(values) for name, values in stored.members()}
    parts = {name: read_elem(group[name]) for name in ("obs", "var", "uns", "obsm", "obsp")}
    attrs = parts["uns"][TableModel.ATTRS_KEY]
    attrs["region"] = np.asarray(attrs["region"]).tolist()  # zarr has arrays for lists
    return AnnData(X=_lazy(group["X"]), layers=layers, **parts)


def _lazy(element: Any) -> Any:
    return da.from_zarr(element) if isinstance(element, zarr.Array) else read_elem(element)
