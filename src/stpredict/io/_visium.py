"""10x Visium, through spatialdata-io."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata.transformations import get_transformation

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict.io._assemble import assemble_section

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Visium: centres 100 µm apart on a hexagonal grid, spots of 55 µm (10x Genomics).
PITCH_UM = 100.0
DIAMETER_UM = 55.0


def read_visium(
    path: str | Path,
    *,
    section: str,
    fullres_image: str | Path | None = None,
    patient: str | None = None,
    **kwargs: Any,
) -> SpatialData:
    """Read a Visium section from Space Ranger's output folder.

    The µm per pixel follow from the array: Visium prints its spots 100 µm apart on a hexagonal
    grid. Spots are the circles of 55 µm they are on the slide. Space Ranger's own
    ``spot_diameter_fullres`` is no ruler: it spans 65 µm in many versions.

    Parameters
    ----------
    path
        Space Ranger's ``outs`` folder.
    section
        Name of the section.
    fullres_image
        The full-resolution image that was given to Space Ranger. Without it the section lies on
        ``tissue_hires_image.png``, whose pixels of several µm are too coarse for most encoders.
    patient
        Name of the patient, for ``obs["patient"]``.
    kwargs
        Passed to :func:`spatialdata_io.visium`.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, ``shapes[section]`` circles,
        ``tables["table"]`` with the counts.

    Raises
    ------
    ValueError
        If the image is not 8-bit RGB, or spots lie outside it.
    FileNotFoundError
        If the folder or one of its files does not exist.

    References
    ----------
    https://spatialdata.scverse.org/projects/io/

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_visium("outs", section="V1", fullres_image="V1.tif")  # doctest: +SKIP
    """
    import spatialdata_io

    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    if fullres_image is not None and not Path(fullres_image).is_file():
        raise FileNotFoundError(f"fullres_image {fullres_image} does not exist")
    with warnings.catch_warnings():
        # spatialdata-io's own table, as spatialdata wants it
        warnings.filterwarnings("ignore", "Converting `region_key", UserWarning)
        read = spatialdata_io.visium(path, dataset_id=section, **kwargs)
    table = read.tables["table"]
    positions = np.asarray(table.obsm[_keys.SPATIAL], dtype=float)
    mpp = _mpp(positions, table)
    image: Any = fullres_image
    if fullres_image is None:
        hires = f"{section}_hires_image"
        if hires not in read.images:
            raise FileNotFoundError(
                f"{path} has no tissue_hires_image.png; give the full-resolution image as "
                "fullres_image="
            )
        scale = _downscale(read, hires)
        tell(
            f"{section}: no fullres_image=, using the hires image ({mpp / scale:.2f} µm per pixel)"
        )
        image, positions, mpp = read.images[hires].data, positions * scale, mpp / scale
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        obs_names=list(table.obs_names),
        var_names=list(table.var_names),
        positions=positions,
        mpp=mpp,
        diameter_um=DIAMETER_UM,
        patient=patient,
        obs=table.obs.drop(columns=[_keys.REGION, "spot_id"], errors="ignore"),
        var=table.var,
    )


def _mpp(positions: NDArray[np.float64], table: AnnData) -> float:
    missing = [name for name in ("array_row", "array_col") if name not in table.obs]
    if missing or len(positions) < 3:
        raise ValueError(
            f"the µm per pixel cannot be derived from {len(positions)} spots with the columns "
            f"{_validate.listing(table.obs.columns)}: array_row and array_col of at least 3 are "
            "needed"
        )
    array = table.obs[["array_col", "array_row"]].to_numpy(dtype=float)
    # columns of one row are two apart, rows are closer by the height of the triangle
    array_um = array * (PITCH_UM / 2, PITCH_UM * np.sqrt(3) / 2)
    design = np.column_stack([array_um, np.ones(len(array_um))])
    affine, _, rank, _ = np.linalg.lstsq(design, positions, rcond=None)
    if rank < 3:
        raise ValueError("all spots lie in one line, so the µm per pixel cannot be derived")
    return float(1 / np.sqrt(abs(np.linalg.det(affine[:2]))))


def _downscale(read: SpatialData, image: str) -> float:
    """Pixels of an image per pixel of the full resolution."""
    transformations = get_transformation(read.images[image], get_all=True)
    # spatialdata-io maps each image to the full resolution in the coordinate system of the dataset
    system = image.removesuffix("_hires_image")
    affine = transformations[system].to_affine_matrix(input_axes=("x",), output_axes=("x",))
    return float(1 / affine[0, 0])
