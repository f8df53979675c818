"""Read one bin size of 10x Visium HD."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import scanpy as sc
import shapely

from stpredict import _validate
from stpredict.io._shared._assemble import assemble_section
from stpredict.io._shared._files import require_entries, require_file, require_folder
from stpredict.io._shared._genes import name_genes
from stpredict.io._shared._space_ranger import HIRES, choose_image, to_image

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

_SCALES = ("bin_size_um", "microns_per_pixel", "tissue_hires_scalef")
_PIXELS = ["pxl_col_in_fullres", "pxl_row_in_fullres"]  # x, y
_ARRAY = ["array_row", "array_col"]


def read_visium_hd(
    path: str | Path,
    *,
    section: str,
    bin_size_um: int = 8,
    fullres_image: str | Path | None = None,
    shapes: Literal["squares", "circles"] = "squares",
    gene_names: Literal["symbols", "ids"] = "symbols",
    patient: str | None = None,
) -> SpatialData:
    """Read the bins of a Visium HD section from Space Ranger's output folder.

    The elements equal those of :func:`spatialdata_io.visium_hd` for one bin size. That function is
    not used because it loads full-resolution ``.btf`` images into memory and always reads the
    segmented cells.

    Parameters
    ----------
    path
        Space Ranger's ``outs`` folder, with ``binned_outputs/square_008um`` and others.
    section
        Name of the section.
    bin_size_um
        Side of the bins in µm: 8, 16, or another size that Space Ranger wrote. Bins of 2 µm are
        too small to differ in their tiles, and there are millions of them.
    fullres_image
        Full-resolution image that was used as input of Space Ranger. By default the section is
        placed on ``tissue_hires_image.png``, whose pixels of 1 µm or more are too coarse for most
        encoders.
    shapes
        Bins as squares, or as circles of the same width, which are faster to plot.
    gene_names
        Index of the genes. ``var["gene_symbols"]`` and ``var["gene_ids"]`` (Ensembl) keep both.
        Repeated symbols are made unique.
    patient
        Name of the patient, for ``obs["patient"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, lazy, ``shapes[section]`` squares or
        circles of the bins under tissue, ``tables["table"]`` n_bins × n_genes counts with
        ``obs["array_row"]`` and ``obs["array_col"]``. The µm per pixel are Space Ranger's
        ``microns_per_pixel``.

    Raises
    ------
    FileNotFoundError
        If the folder, the bin size, or one of the files does not exist.
    ValueError
        If the scale factors are incomplete or of another bin size, bins with counts have no
        position, the image is not 8-bit RGB or does not match the hires image, or bins lie outside
        it.

    References
    ----------
    https://www.10xgenomics.com/support/software/space-ranger/latest/analysis/outputs/output-overview

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_visium_hd(
    ...     "outs", section="HD1", bin_size_um=16, fullres_image="HD1.btf"
    ... )  # doctest: +SKIP
    """
    # check everything before reading anything
    _validate.one_of("shapes", shapes, ["squares", "circles"])
    _validate.one_of("gene_names", gene_names, ["symbols", "ids"])
    path = require_folder(path)
    folder = _bin_folder(path, bin_size_um)
    spatial = folder / "spatial"
    counts_file = require_file(folder / "filtered_feature_bc_matrix.h5")
    positions_file = require_file(spatial / "tissue_positions.parquet")
    scales = _scales(require_file(spatial / "scalefactors_json.json"), bin_size_um)
    hires = spatial / HIRES
    if not hires.is_file():  # in some versions only at the top of the output
        hires = path / "spatial" / HIRES
    image = choose_image(fullres_image, hires)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        table = sc.read_10x_h5(counts_file)  # genes only, no controls
    placed = _positions(positions_file, table.obs_names)
    var = name_genes(table.var, table.var_names, gene_names)
    positions, mpp = to_image(
        placed[_PIXELS].to_numpy(dtype=float),
        float(scales["microns_per_pixel"]),
        image=image,
        hires=hires,
        scale=float(scales["tissue_hires_scalef"]),
        section=section,
    )
    low, high = (positions + sign * bin_size_um / mpp / 2 for sign in (-1, 1))
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        obs_names=table.obs_names,
        var_names=var.index,
        positions=positions,
        mpp=mpp,
        diameter_um=float(bin_size_um),
        polygons=shapely.box(*low.T, *high.T) if shapes == "squares" else None,
        patient=patient,
        obs=placed[_ARRAY],
        var=var,
    )


def _bin_folder(path: Path, bin_size_um: int) -> Path:
    """Find the folder of a bin size, in ``outs`` or in ``binned_outputs``."""
    parent = path / "binned_outputs" if (path / "binned_outputs").is_dir() else path
    folders = {folder.name: folder for folder in sorted(parent.glob("square_*um"))}
    name = f"square_{bin_size_um:03}um" if isinstance(bin_size_um, int) else ""
    if name not in folders:
        raise FileNotFoundError(
            f"{parent} has no bins of bin_size_um={bin_size_um!r}; it has "
            f"{_validate.listing(folders)}"
        )
    return folders[name]


def _scales(file: Path, bin_size_um: int) -> dict[str, Any]:
    scales: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    require_entries(file, scales, _SCALES)
    for name in _SCALES:
        _validate.positive(f"{name} in {file}", scales[name])
    if scales["bin_size_um"] != bin_size_um:
        raise ValueError(
            f"{file} is for bins of {scales['bin_size_um']:g} µm, but its folder for {bin_size_um} "
            "µm"
        )
    return scales


def _positions(file: Path, barcodes: pd.Index) -> pd.DataFrame:
    """Positions of the bins with counts, in the order of the counts."""
    positions = pd.read_parquet(file)
    require_entries(file, positions, ["barcode", *_ARRAY, *_PIXELS])
    positions = positions.set_index("barcode")
    has_position = barcodes.isin(positions.index)
    if not has_position.all():
        raise ValueError(
            f"{(~has_position).sum()} of {len(barcodes)} bins have counts but no position in "
            f"{file}, such as {barcodes[~has_position][0]}"
        )
    return positions.loc[barcodes]
