"""Read 10x Visium, through spatialdata-io."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np

from stpredict import _keys, _validate
from stpredict.io._shared._assemble import assemble_section
from stpredict.io._shared._files import require_entries, require_file, require_folder
from stpredict.io._shared._genes import name_genes
from stpredict.io._shared._space_ranger import HIRES, choose_image, to_image

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

# Spots of 55 µm on a hexagonal grid, centres 100 µm apart (10x Genomics).
_PITCH_UM = 100.0
_DIAMETER_UM = 55.0
# Space Ranger before version 2, and from version 2.
_POSITIONS = ("tissue_positions_list.csv", "tissue_positions.csv")


def read_visium(
    path: str | Path,
    *,
    section: str,
    fullres_image: str | Path | None = None,
    counts_file: str = "filtered_feature_bc_matrix.h5",
    gene_names: Literal["symbols", "ids"] = "symbols",
    patient: str | None = None,
) -> SpatialData:
    """Read a Visium section from Space Ranger's output folder, of any version.

    The µm per pixel are derived from the array, whose spots are printed 100 µm apart on a
    hexagonal grid. Spots are circles of 55 µm, as on the slide. Space Ranger's
    ``spot_diameter_fullres`` is not used, because it covers 65 µm in many versions.

    Parameters
    ----------
    path
        Space Ranger's ``outs`` folder, with the counts and in ``spatial`` the scale factors, the
        positions (``tissue_positions.csv``, or ``tissue_positions_list.csv`` with or without a
        header) and the image.
    section
        Name of the section.
    fullres_image
        Full-resolution image that was used as input of Space Ranger. By default the section is
        placed on ``tissue_hires_image.png``, whose pixels of several µm are too coarse for most
        encoders.
    counts_file
        Name of the counts file in the folder, without its prefix if it has one. Alternatives are
        ``"raw_feature_bc_matrix.h5"``, which includes spots off the tissue, and
        ``"filtered_feature_bc_matrix/matrix.mtx.gz"``.
    gene_names
        Index of the genes. ``var["gene_symbols"]`` and ``var["gene_ids"]`` (Ensembl) keep both.
        Repeated symbols are made unique.
    patient
        Name of the patient, for ``obs["patient"]``.

    Returns
    -------
    SpatialData
        ``images[f"{section}_image"]`` (3, y, x) uint8, ``shapes[section]`` circles,
        ``tables["table"]`` with the counts.

    Raises
    ------
    FileNotFoundError
        If the folder, the image or another file does not exist.
    ValueError
        If the image is not 8-bit RGB or does not match the hires image, spots lie outside it, or
        some have counts but no position.
    KeyError
        If ``gene_names="ids"`` and the counts file has no Ensembl ids.

    References
    ----------
    https://spatialdata.scverse.org/projects/io/

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_visium("outs", section="V1", fullres_image="V1.tif")  # doctest: +SKIP
    """
    import spatialdata_io

    # check everything before reading anything
    path = require_folder(path)
    _validate.one_of("gene_names", gene_names, ["symbols", "ids"])
    counts = _counts(path, counts_file)
    spatial = path / "spatial"
    if not any((spatial / name).is_file() for name in _POSITIONS):
        raise FileNotFoundError(f"{spatial} has neither {' nor '.join(_POSITIONS)}")
    scales = json.loads(require_file(spatial / "scalefactors_json.json").read_bytes())
    hires = spatial / HIRES
    image = choose_image(fullres_image, hires)

    # ids as the index of a .mtx.gz file: its symbols then stay as written, in a column
    is_mtx = counts.name.endswith(".mtx.gz")
    options: dict[str, Any] = {"var_names": "gene_ids"} if is_mtx else {}
    with warnings.catch_warnings():
        # about spatialdata-io's own table, which is not kept
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        warnings.filterwarnings("ignore", "Converting `region_key", UserWarning)
        table = spatialdata_io.visium(
            path, dataset_id=section, counts_file=counts_file, **options
        ).tables["table"]
    if is_mtx:
        table.var[_keys.GENE_IDS] = table.var_names
    var = name_genes(table.var, _symbols(counts, table), gene_names)
    positions = np.asarray(table.obsm["spatial"], dtype=float)
    positions, mpp = to_image(
        positions,
        _mpp(positions, table),
        image=image,
        hires=hires,
        scale=scales["tissue_hires_scalef"],
        section=section,
    )
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        obs_names=table.obs_names,
        var_names=var.index,
        positions=positions,
        mpp=mpp,
        diameter_um=_DIAMETER_UM,
        patient=patient,
        obs=table.obs.drop(columns=["region", "spot_id"]),
        var=var,
    )


def _counts(path: Path, counts_file: str) -> Path:
    """Find the counts file, whose name may have a prefix."""
    if (path / counts_file).is_file():
        return path / counts_file
    prefixed = sorted(path.glob(f"*_{counts_file}"))
    if len(prefixed) != 1:
        files = _validate.listing(sorted(file.name for file in path.iterdir()))
        raise FileNotFoundError(
            f"{path} has {len(prefixed)} files *_{counts_file}; it has {files}. Set counts_file="
        )
    return prefixed[0]


def _symbols(counts: Path, table: AnnData) -> list[str]:
    """Gene symbols as written in the file; spatialdata-io makes them unique."""
    if _keys.GENE_SYMBOLS in table.var:
        return list(table.var[_keys.GENE_SYMBOLS])
    if counts.suffix == ".h5" and _keys.GENE_IDS in table.var:
        with h5py.File(counts, "r") as file:
            features = file.get("matrix/features", {})  # absent before Cell Ranger 3
            if {"id", "name"} <= set(features):
                ids, names = (features[key].asstr()[:] for key in ("id", "name"))
                symbol_of = dict(zip(ids, names, strict=True))
                return [symbol_of[gene] for gene in table.var[_keys.GENE_IDS]]
    return list(table.var_names)


def _mpp(positions: NDArray[np.float64], table: AnnData) -> float:
    """Derive µm per pixel from an affine fit of pixel positions to the printed array."""
    has_position = np.isfinite(positions).all(axis=1)
    if not has_position.all():
        raise ValueError(
            f"{(~has_position).sum()} of {len(positions)} spots have counts but no position, such "
            f"as {table.obs_names[~has_position][0]}. Check that counts and positions belong to "
            "the same section"
        )
    require_entries("the positions file", table.obs, ["array_col", "array_row"])
    array = table.obs[["array_col", "array_row"]].to_numpy(dtype=float)
    # columns of one row are two apart; rows are closer by the height of the triangle
    array_um = array * (_PITCH_UM / 2, _PITCH_UM * np.sqrt(3) / 2)
    design = np.column_stack([array_um, np.ones(len(array_um))])
    affine, _, rank, _ = np.linalg.lstsq(design, positions, rcond=None)
    if rank < 3:
        raise ValueError(
            f"the µm per pixel cannot be derived from {len(positions)} spots that lie in one line"
        )
    return float(1 / np.sqrt(abs(np.linalg.det(affine[:2]))))
