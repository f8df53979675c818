"""Read one bin size of 10x Visium HD."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from spatialdata import SpatialData

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.io._shared import _space_ranger
from stpredict.io._shared._files import (
    read_json,
    reading,
    require_entries,
    require_file,
    require_folder,
)

_MPP_TOLERANCE = 0.02  # relative difference of µm per pixel, as written and from the bins
_SCALES = ("bin_size_um", "microns_per_pixel", "tissue_hires_scalef")


@checked
def read_visium_hd(
    path: str | Path,
    *,
    section: str,
    patient: str | None = None,
    bin_size_um: int = 8,
    fullres_image: str | Path | None = None,
    shapes: Literal["squares", "circles"] = "squares",
    gene_names: Literal["symbols", "ids"] = "symbols",
    outside: Literal["error", "drop"] = "error",
) -> SpatialData:
    """Read the bins of a Visium HD section from Space Ranger's output folder.

    The elements equal those of :func:`spatialdata_io.visium_hd`, but images stay on disk.

    Parameters
    ----------
    path
        Space Ranger's ``outs`` folder, with ``binned_outputs/square_008um`` and others.
    section, patient
        Name of the section, and of the patient for ``obs["patient"]``.
    bin_size_um
        Side of the bins in µm: 8, 16, or another size that Space Ranger wrote. Bins of 2 µm are
        too small to differ in their tiles, and there are millions of them.
    fullres_image
        Full-resolution image that was used as input of Space Ranger. The default,
        ``tissue_hires_image.png``, is too coarse for most encoders.
    shapes
        Bins as squares, or as circles of the same width, which are faster to plot.
    gene_names
        Index of the genes, made unique; ``var`` has both ``"gene_symbols"`` and ``"gene_ids"``.
    outside
        Whether bins without a position in the image raise an error or are dropped. Names of dropped
        bins are in ``uns["stpredict"]["outside_image"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, lazy, ``shapes[section]`` squares or
        circles of the bins under tissue, ``tables["table"]`` n_bins × n_genes counts with
        ``obs["array_row"]`` and ``obs["array_col"]``. The µm per pixel are Space Ranger's.

    Raises
    ------
    FileNotFoundError
        If the folder, the bin size, or one of the files does not exist.
    ValueError
        If a file is damaged, scale factors are incomplete or of another bin size, bins have no
        position or lie outside the image, or it is not 8-bit RGB or does not match the hires image.

    References
    ----------
    https://www.10xgenomics.com/support/software/space-ranger/latest/analysis/outputs/output-overview

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_visium_hd("outs", section="HD1", bin_size_um=16)  # doctest: +SKIP
    """
    # check everything before reading anything
    path = require_folder(path)
    folder = _bin_folder(path, bin_size_um)
    spatial = folder / "spatial"
    counts_file = require_file(folder / "filtered_feature_bc_matrix.h5")
    positions_file = require_file(spatial / "tissue_positions.parquet")
    scales_path = require_file(spatial / "scalefactors_json.json")
    scales = read_json(scales_path, _SCALES)
    size = scales["bin_size_um"]
    if size != bin_size_um:
        sizes = f"{size:g} µm, but its folder for {bin_size_um} µm"
        raise ValueError(f"{scales_path} is for bins of {sizes}")
    hires = spatial / _space_ranger.HIRES
    if not hires.is_file():  # in some versions only at the top of the output
        hires = path / "spatial" / _space_ranger.HIRES
    require_file(fullres_image or hires, hint=_space_ranger.HINT)

    table = _space_ranger.read_counts(counts_file)
    with reading(positions_file):
        bins = pd.read_parquet(positions_file)
    require_entries(positions_file, bins, ["barcode", *_space_ranger.ARRAY, *_space_ranger.PIXELS])
    bins = _space_ranger.select_positions(bins.set_index("barcode"), table.obs_names, what="bins")
    mpp, size = float(scales["microns_per_pixel"]), float(bin_size_um)
    mpp_of_bins = _space_ranger.fit_array(bins, steps_um=(size, size))
    if abs(mpp_of_bins / mpp - 1) > _MPP_TOLERANCE:
        raise ValueError(
            f"microns_per_pixel in {scales_path} is {mpp:.4g}, but positions of bins are on a grid "
            f"with {mpp_of_bins:.4g}. Check that the files belong to the same section"
        )
    return _space_ranger.assemble_spots(
        section,
        table,
        bins[[*_space_ranger.PIXELS, *_space_ranger.ARRAY]],
        fullres_image=fullres_image,
        hires=hires,
        scale=float(scales["tissue_hires_scalef"]),
        mpp=mpp,
        diameter_um=size,
        squares=shapes == "squares",
        gene_names=gene_names,
        patient=patient,
        outside=outside,
    )


def _bin_folder(path: Path, bin_size_um: int) -> Path:
    """Find the folder of a bin size, in ``outs`` or in ``binned_outputs``."""
    parent = path / "binned_outputs" if (path / "binned_outputs").is_dir() else path
    folders = {folder.name: folder for folder in sorted(parent.glob("square_*um"))}
    name = f"square_{bin_size_um:03}um" if isinstance(bin_size_um, int) else ""
    if name not in folders:
        raise FileNotFoundError(
            f"{parent} has no bins of {bin_size_um=}; it has {_validate.listing(folders)}"
        )
    return folders[name]
