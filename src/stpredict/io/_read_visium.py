"""Read 10x Visium."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from spatialdata import SpatialData

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.io._shared import _space_ranger
from stpredict.io._shared._files import (
    number_columns,
    read_json,
    reading,
    require_file,
    require_folder,
)

# Spots of 55 µm on a hexagonal grid, centres 100 µm apart (10x Genomics): columns of one row are
# two apart, and rows are closer by the height of the triangle.
_STEPS_UM = (100 * np.sqrt(3) / 2, 100 / 2)
_DIAMETER_UM = 55.0
_SCALE = "tissue_hires_scalef"
_POSITIONS = ("tissue_positions_list.csv", "tissue_positions.csv")  # before and from version 2


@checked
def read_visium(
    path: str | Path,
    *,
    section: str,
    patient: str | None = None,
    fullres_image: str | Path | None = None,
    counts_file: str = "filtered_feature_bc_matrix.h5",
    gene_names: Literal["symbols", "ids"] = "symbols",
    outside: Literal["error", "drop"] = "error",
) -> SpatialData:
    """Read a Visium section from Space Ranger's output folder, of any version.

    The µm per pixel are derived from the array, whose spots are printed 100 µm apart. Spots are
    circles of 55 µm; Space Ranger's ``spot_diameter_fullres`` covers 65 µm in many versions.

    Parameters
    ----------
    path
        Space Ranger's ``outs`` folder, with the counts and in ``spatial`` the scale factors, the
        positions and the image.
    section, patient
        Name of the section, and of the patient for ``obs["patient"]``.
    fullres_image
        Full-resolution image that was used as input of Space Ranger. The default,
        ``tissue_hires_image.png``, is too coarse for most encoders.
    counts_file
        Name of the counts file, without its prefix. ``"raw_feature_bc_matrix.h5"`` includes spots
        off the tissue; ``"filtered_feature_bc_matrix/matrix.mtx.gz"`` is another format.
    gene_names
        Index of the genes, made unique; ``var`` has both ``"gene_symbols"`` and ``"gene_ids"``.
    outside
        Whether spots without a position in the image raise an error or are dropped. Names of
        dropped spots are in ``uns["stpredict"]["outside_image"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, ``shapes[section]`` circles,
        ``tables["table"]`` with the counts.

    Raises
    ------
    FileNotFoundError, KeyError
        If the folder or a file does not exist, or the counts file has no Ensembl ids to index by.
    ValueError
        If a file is damaged, the scale factors lack ``tissue_hires_scalef``, the image is not 8-bit
        RGB or does not match the hires image, pixel positions do not follow the array, spots lie
        outside the image, or some have counts but no position.

    References
    ----------
    https://www.10xgenomics.com/support/software/space-ranger/latest/analysis/outputs/output-overview

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_visium("outs", section="V1", fullres_image="V1.tif")  # doctest: +SKIP
    """
    # check everything before reading anything
    path = require_folder(path)
    counts = _counts(path, counts_file)
    spatial = path / "spatial"
    position_files = [spatial / name for name in _POSITIONS if (spatial / name).is_file()]
    if not position_files:
        raise FileNotFoundError(f"{spatial} has neither {' nor '.join(_POSITIONS)}")
    scales = read_json(require_file(spatial / "scalefactors_json.json"), [_SCALE])
    hires = spatial / _space_ranger.HIRES
    require_file(fullres_image or hires, hint=_space_ranger.HINT)

    table = _space_ranger.read_counts(counts)
    spots = _read_positions(position_files[0])
    spots = _space_ranger.select_positions(spots, table.obs_names, what="spots")
    return _space_ranger.assemble_spots(
        section,
        table,
        spots,
        fullres_image=fullres_image,
        hires=hires,
        scale=float(scales[_SCALE]),
        mpp=_space_ranger.fit_array(spots, steps_um=_STEPS_UM),
        diameter_um=_DIAMETER_UM,
        gene_names=gene_names,
        patient=patient,
        outside=outside,
    )


def _counts(path: Path, counts_file: str) -> Path:
    """Find the counts file, whose name may have a prefix."""
    if (path / counts_file).is_file():
        return path / counts_file
    prefixed = sorted(path.glob(f"*_{counts_file}"))
    if len(prefixed) != 1:
        number = f"{len(prefixed)} files *_{counts_file}"
        files = _validate.listing(sorted(file.name for file in path.iterdir()))
        raise FileNotFoundError(f"{path} has {number}; it has {files}. Set counts_file=")
    return prefixed[0]


def _read_positions(file: Path) -> pd.DataFrame:
    """Read the positions, indexed by barcode; files before version 2 may have no header."""
    names = ["barcode", "in_tissue", *_space_ranger.ARRAY, *reversed(_space_ranger.PIXELS)]
    with reading(file):
        with file.open(encoding="utf-8") as lines:
            has_header = "in_tissue" in next(lines, "")
        spots = pd.read_csv(file, header=0 if has_header else None)
    if not has_header:
        if spots.shape[1] != len(names):
            columns = f"{spots.shape[1]} columns without a header"
            raise ValueError(f"{file} has {columns}, not the {len(names)} of Space Ranger")
        spots.columns = pd.Index(names)
    number_columns(file, spots, names[1:])
    return spots.set_index("barcode")[names[1:]]
