"""10x Visium HD: one of its square bins."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scanpy as sc
import shapely

from stpredict import _validate
from stpredict.io._assemble import assemble_section
from stpredict.io._genes import GeneNames, check_gene_names, named_genes
from stpredict.io._hires import HIRES, choose_image, place

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

_COUNTS = "filtered_feature_bc_matrix.h5"
_SCALES = ("bin_size_um", "microns_per_pixel", "tissue_hires_scalef")
_POSITIONS = ("barcode", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")


def read_visium_hd(
    path: str | Path,
    *,
    section: str,
    bin_size_um: int = 8,
    fullres_image: str | Path | None = None,
    shapes: Literal["squares", "circles"] = "squares",
    gene_names: GeneNames = "symbols",
    patient: str | None = None,
) -> SpatialData:
    """Read the bins of a Visium HD section from Space Ranger's output folder.

    The same elements as :func:`spatialdata_io.visium_hd` gives for one bin size, without what is
    not asked for: that function loads full-resolution images in the ``.btf`` format whole, and the
    segmented cells beside the bins.

    Parameters
    ----------
    path
        Space Ranger's ``outs`` folder, with ``binned_outputs/square_008um`` and others.
    section
        Name of the section.
    bin_size_um
        Side of the bins in µm: 8 or 16, or another that Space Ranger was asked for. Bins of 2 µm
        are smaller than a tile can tell apart, and millions.
    fullres_image
        The full-resolution image that was given to Space Ranger. Without it the section lies on
        ``tissue_hires_image.png``, whose pixels of a µm or more are too coarse for most encoders.
    shapes
        Bins as the squares they are, or as circles of their width, which plot faster.
    gene_names
        What the genes are indexed by; ``var["gene_symbols"]`` and ``var["gene_ids"]`` (Ensembl)
        keep both. Names that repeat, as some symbols do, are made unique.
    patient
        Name of the patient, for ``obs["patient"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, lazy, ``shapes[section]`` squares or
        circles of the bins under tissue, ``tables["table"]`` n_bins × n_genes counts with
        ``obs["array_row"]`` and ``obs["array_col"]``; µm per pixel from Space Ranger's
        ``microns_per_pixel``.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files does not exist, or there are no such bins.
    ValueError
        If the scale factors lack an entry or are of another bin size, positions lack a column or
        bins of the counts, the image is not 8-bit RGB or not the one that the hires image was made
        of, or bins lie outside it.

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
    _validate.one_of("shapes", shapes, ["squares", "circles"])
    check_gene_names(gene_names)
    folder = _bin_folder(Path(path), bin_size_um)
    spatial = folder / "spatial"
    needed = [folder / _COUNTS, spatial / "tissue_positions.parquet"]
    needed += [spatial / "scalefactors_json.json"]
    for file in needed:
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist")
    hires = _hires(Path(path), spatial)
    image = choose_image(spatial, fullres_image, hires)
    scales = _scales(spatial / "scalefactors_json.json", bin_size_um)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        table = sc.read_10x_h5(folder / _COUNTS)  # genes only
    placed = _placed(spatial / "tissue_positions.parquet", table.obs_names)
    names, var = named_genes(table.var, table.var_names, gene_names=gene_names)
    positions, mpp = place(
        placed[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=float),
        float(scales["microns_per_pixel"]),
        image=image,
        hires=hires,
        scale=float(scales["tissue_hires_scalef"]),
        section=section,
    )
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        obs_names=list(table.obs_names),
        var_names=names,
        positions=positions,
        mpp=mpp,
        diameter_um=float(bin_size_um),
        polygons=_squares(positions, bin_size_um / mpp) if shapes == "squares" else None,
        patient=patient,
        obs=placed[["array_row", "array_col"]],
        var=var,
    )


def _bin_folder(path: Path, bin_size_um: int) -> Path:
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    parent = path / "binned_outputs" if (path / "binned_outputs").is_dir() else path
    available = sorted(folder.name for folder in parent.glob("square_*um") if folder.is_dir())
    wanted = f"square_{bin_size_um:03}um" if isinstance(bin_size_um, int) else None
    if wanted not in available:
        raise FileNotFoundError(
            f"{parent} has no bins of bin_size_um={bin_size_um!r}; it has "
            f"{_validate.listing(available)}"
        )
    return parent / str(wanted)


def _hires(path: Path, spatial: Path) -> Path | None:
    files = (folder / HIRES for folder in (spatial, path / "spatial"))
    return next((file for file in files if file.is_file()), None)


def _scales(file: Path, bin_size_um: int) -> dict[str, Any]:
    scales: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    missing = [name for name in _SCALES if name not in scales]
    if missing:
        raise ValueError(
            f"{file} has no {_validate.listing(missing)}; it has {_validate.listing(scales)}"
        )
    for name in _SCALES:
        _validate.positive(f"{name} in {file}", scales[name])
    if scales["bin_size_um"] != bin_size_um:
        raise ValueError(
            f"{file} is of bins of {scales['bin_size_um']:g} µm, its folder of {bin_size_um} µm"
        )
    return scales


def _placed(file: Path, barcodes: pd.Index) -> pd.DataFrame:
    """Positions of the bins that have counts, in their order."""
    positions = pd.read_parquet(file)
    missing = [name for name in _POSITIONS if name not in positions]
    if missing:
        raise ValueError(
            f"{file} has no column {_validate.listing(missing)}; it has "
            f"{_validate.listing(positions.columns)}"
        )
    positions = positions.set_index("barcode")
    known = barcodes.isin(positions.index)
    if not known.all():
        raise ValueError(
            f"{int((~known).sum())} of {len(barcodes)} bins have counts but no position in {file}, "
            f"such as {barcodes[~known][0]}"
        )
    return positions.loc[barcodes]


def _squares(positions: NDArray[np.float64], side_px: float) -> NDArray[np.object_]:
    low, high = positions - side_px / 2, positions + side_px / 2
    return np.asarray(shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1]))
