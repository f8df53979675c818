"""An AnnData with pixel positions, and its image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

from stpredict import _keys, _validate
from stpredict.io._assemble import assemble_section

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from spatialdata import SpatialData


def read_h5ad(
    h5ad: str | Path | ad.AnnData,
    image: str | Path,
    *,
    section: str,
    mpp: float,
    diameter_um: float,
    x: str | None = None,
    y: str | None = None,
    patient: str | None = None,
) -> SpatialData:
    """Read an AnnData whose spots or cells have pixel positions, and the image they lie on.

    This is how HEST-1k and DeepSpot's examples come.

    Parameters
    ----------
    h5ad
        File, or the object itself; counts in ``X``.
    image
        H&E image, TIFF, JPEG or PNG.
    section
        Name of the section.
    mpp
        µm per pixel of the image.
    diameter_um
        Diameter of a spot or cell in µm.
    x, y
        Columns of ``obs`` with the position along the width and the height of the image, in
        pixels. By default ``obsm["spatial"]``, whose first column is x. Files disagree about
        which is which: in some, ``x_pixel`` is the *row*. Positions outside the image are
        refused, so a swap is noticed wherever the image is not much larger than the tissue.
    patient
        Name of the patient, for ``obs["patient"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, ``shapes[section]`` circles,
        ``tables["table"]`` with the counts, ``obs`` and ``var`` of the file.

    Raises
    ------
    KeyError
        If there is no such column, or no ``obsm["spatial"]``.
    ValueError
        If counts are negative or NaN, ids repeat, or positions lie outside the image.

    References
    ----------
    Jaume et al., HEST-1k: a dataset for spatial transcriptomics and histology image analysis,
    NeurIPS 2024.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_h5ad(
    ...     "NCBI858.h5ad",
    ...     "NCBI858.jpg",
    ...     section="NCBI858",
    ...     mpp=0.25,
    ...     diameter_um=10,
    ...     x="y_pixel",
    ...     y="x_pixel",
    ... )  # doctest: +SKIP
    """
    table = h5ad if isinstance(h5ad, ad.AnnData) else ad.read_h5ad(h5ad)
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        obs_names=list(table.obs_names),
        var_names=list(table.var_names),
        positions=_positions(table, x=x, y=y),
        mpp=mpp,
        diameter_um=diameter_um,
        patient=patient,
        obs=table.obs,
        var=table.var,
    )


def _positions(table: ad.AnnData, *, x: str | None, y: str | None) -> NDArray[np.float64]:
    if (x is None) != (y is None):
        raise ValueError(f"give both x= and y=, or neither: x={x!r}, y={y!r}")
    if x is None or y is None:
        if _keys.SPATIAL not in table.obsm:
            raise KeyError(
                f"no obsm[{_keys.SPATIAL!r}]; give x= and y=, columns of obs: "
                f"{_validate.listing(table.obs.columns, most=20)}"
            )
        return np.asarray(table.obsm[_keys.SPATIAL], dtype=float)[:, :2]
    for name in (x, y):
        if name not in table.obs:
            raise KeyError(
                f"no column {name!r} in obs: {_validate.listing(table.obs.columns, most=20)}"
            )
    return table.obs[[x, y]].to_numpy(dtype=float)
