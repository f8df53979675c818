"""Read an AnnData with pixel positions, and its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import anndata as ad
import dask.array as da
import numpy as np
from numpy.typing import NDArray
from spatialdata import SpatialData

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict.io._shared._assemble import assemble_section
from stpredict.io._shared._files import (
    number_columns,
    reading,
    require_entries,
    require_file,
)


@checked
def read_h5ad(
    h5ad: str | Path | ad.AnnData,
    image: str | Path | NDArray[Any] | da.Array,
    *,
    section: str,
    mpp: float,
    diameter_um: float,
    x: str | None = None,
    y: str | None = None,
    patient: str | None = None,
    outside: Literal["error", "drop"] = "error",
) -> SpatialData:
    """Read an AnnData whose spots or cells have pixel positions, and its H&E image.

    HEST-1k and DeepSpot's examples are distributed in this form.

    Parameters
    ----------
    h5ad
        File or AnnData object, with counts in ``X``.
    image
        H&E image: a TIFF, JPEG or PNG file, read as by `read_slide`, or an array (y, x, 3) or
        (3, y, x).
    section
        Name of the section.
    mpp, diameter_um
        µm per pixel of the image, and diameter of the spots or cells in µm.
    x, y
        Columns of ``obs`` with the position along the width and the height of the image, in
        pixels; by default ``obsm["spatial"]``. Some files call the *row* ``x_pixel``.
    patient
        Name of the patient, for ``obs["patient"]``.
    outside
        Whether spots or cells without a position in the image raise an error or are dropped.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, ``shapes[section]`` circles,
        ``tables["table"]`` with the counts, ``obs`` and ``var`` of the file. Names of dropped spots
        are in ``uns["stpredict"]["outside_image"]``.

    Raises
    ------
    FileNotFoundError, KeyError
        If a file, a column or ``obsm["spatial"]`` does not exist.
    ValueError
        If a file is damaged, counts are negative or NaN, ids are not unique, positions lie outside
        the image (often because x and y are swapped), the image is not 8-bit RGB, or ``mpp`` is not
        plausible (0.05 to 20).
    TypeError
        If counts or positions are not numbers.

    References
    ----------
    Jaume et al., HEST-1k: a dataset for spatial transcriptomics and histology image analysis,
    NeurIPS 2024.

    Examples
    --------
    >>> import stpredict as stp
    >>> phantom = stp.datasets.phantom(size_px=800)
    >>> table, image = phantom.tables["table"], phantom.images["S1_image"]["scale0"]["image"]
    >>> sdata = stp.io.read_h5ad(table, image.data, section="copy", mpp=1.0, diameter_um=55)
    >>> list(sdata.images), list(sdata.shapes)
    (['copy_image'], ['copy'])
    """
    table = h5ad if isinstance(h5ad, ad.AnnData) else _read(require_file(h5ad))
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        positions=_positions(table, x, y),
        mpp=mpp,
        diameter_um=diameter_um,
        patient=patient,
        outside=outside,
        obs=table.obs,
        var=table.var,
    )


def _read(file: Path) -> ad.AnnData:
    with reading(file):
        return ad.read_h5ad(file)


def _positions(table: ad.AnnData, x: str | None, y: str | None) -> NDArray[np.float64]:
    if (x is None) != (y is None):
        raise ValueError(f"set both x= and y=, or neither: x={x!r}, y={y!r}")
    if x is not None and y is not None:
        require_entries("obs", table.obs, [x, y], error=KeyError)
        return number_columns("obs", table.obs, [x, y])
    if _keys.SPATIAL not in table.obsm:
        columns = _validate.listing(table.obs.columns, most=20)
        raise KeyError(f"no obsm[{_keys.SPATIAL!r}]. Set x= and y=, columns of obs: {columns}")
    return np.asarray(table.obsm[_keys.SPATIAL], dtype=float)[:, :2]
