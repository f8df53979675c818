"""10x Visium, through spatialdata-io."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from spatialdata.transformations import get_transformation

from stpredict import _keys, _validate
from stpredict._sdata._elements import matrix_of
from stpredict.io._assemble import assemble_section
from stpredict.io._genes import GeneNames, check_gene_names, named_genes
from stpredict.io._hires import HIRES, choose_image, place

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Visium: centres 100 µm apart on a hexagonal grid, spots of 55 µm (10x Genomics).
PITCH_UM = 100.0
DIAMETER_UM = 55.0

COUNTS = "filtered_feature_bc_matrix.h5"
_POSITIONS = ("tissue_positions_list.csv", "tissue_positions.csv")  # Space Ranger before and from 2


def read_visium(
    path: str | Path,
    *,
    section: str,
    fullres_image: str | Path | None = None,
    counts_file: str = COUNTS,
    gene_names: GeneNames = "symbols",
    patient: str | None = None,
    **kwargs: Any,
) -> SpatialData:
    """Read a Visium section from Space Ranger's output folder, of any version.

    The µm per pixel follow from the array: Visium prints its spots 100 µm apart on a hexagonal
    grid. Spots are the circles of 55 µm they are on the slide. Space Ranger's own
    ``spot_diameter_fullres`` is no ruler: it spans 65 µm in many versions.

    Parameters
    ----------
    path
        Space Ranger's ``outs`` folder, with the counts and in ``spatial`` the scale factors, the
        positions (``tissue_positions.csv``, or ``tissue_positions_list.csv`` with or without a
        header) and the image.
    section
        Name of the section.
    fullres_image
        The full-resolution image that was given to Space Ranger. Without it the section lies on
        ``tissue_hires_image.png``, whose pixels of several µm are too coarse for most encoders.
    counts_file
        Name of the counts within the folder; a prefix, as in downloads, is found. Also
        ``"raw_feature_bc_matrix.h5"``, which has the spots off the tissue too, or
        ``"filtered_feature_bc_matrix/matrix.mtx.gz"``.
    gene_names
        What the genes are indexed by; ``var["gene_symbols"]`` and ``var["gene_ids"]`` (Ensembl)
        keep both. Names that repeat, as some symbols do, are made unique.
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
    FileNotFoundError
        If the folder or one of its files does not exist, the image among them.
    ValueError
        If the image is not 8-bit RGB or not the one that the hires image was made of, spots lie
        outside it, or some have counts but no position.
    KeyError
        If ``gene_names="ids"`` and the counts have none.

    References
    ----------
    https://spatialdata.scverse.org/projects/io/

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.io.read_visium("outs", section="V1", fullres_image="V1.tif")  # doctest: +SKIP
    """
    import spatialdata_io

    path = Path(path)
    check_gene_names(gene_names)
    counts = _counts(path, counts_file)
    _require_files(path / "spatial")
    hires = path / "spatial" / HIRES
    image = choose_image(hires.parent, fullres_image, hires)
    if counts.name.endswith(".mtx.gz"):
        kwargs.setdefault("var_names", "gene_ids")  # the symbols stay as they are, in a column
    with warnings.catch_warnings():
        # spatialdata-io's own table, as spatialdata wants it
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        warnings.filterwarnings("ignore", "Converting `region_key", UserWarning)
        read = spatialdata_io.visium(path, dataset_id=section, counts_file=counts_file, **kwargs)
    table = read.tables["table"]
    names, var = named_genes(*_genes(counts, table), gene_names=gene_names)
    positions = np.asarray(table.obsm[_keys.SPATIAL], dtype=float)
    to_hires = get_transformation(read.shapes[section], f"{section}_downscaled_hires")
    scale = float(matrix_of(to_hires)[0, 0])
    positions, mpp = place(
        positions, _mpp(positions, table), image=image, hires=hires, scale=scale, section=section
    )
    return assemble_section(
        section,
        image=image,
        counts=table.X,
        obs_names=list(table.obs_names),
        var_names=names,
        positions=positions,
        mpp=mpp,
        diameter_um=DIAMETER_UM,
        patient=patient,
        obs=table.obs.drop(columns=[_keys.REGION, "spot_id"], errors="ignore"),
        var=var,
    )


def _counts(path: Path, counts_file: str) -> Path:
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    if (path / counts_file).is_file():
        return path / counts_file
    prefixed = sorted(path.glob(f"*_{counts_file}"))
    if len(prefixed) == 1:
        return prefixed[0]
    raise FileNotFoundError(
        f"{path} has {'several files *_' if prefixed else 'no '}{counts_file}; it has "
        f"{_validate.listing(sorted(file.name for file in path.iterdir()))}: give counts_file="
    )


def _require_files(spatial: Path) -> None:
    """Require all that is read beside counts and image, before anything is read."""
    if not any((spatial / name).is_file() for name in _POSITIONS):
        raise FileNotFoundError(f"{spatial} has neither {' nor '.join(_POSITIONS)}")
    if not (spatial / "scalefactors_json.json").is_file():
        raise FileNotFoundError(f"{spatial} has no scalefactors_json.json")


def _genes(counts: Path, table: AnnData) -> tuple[pd.DataFrame, list[str]]:
    """Give the columns of the genes, and their symbols before they were made unique."""
    if _keys.GENE_SYMBOLS in table.var:  # named by their ids
        var = table.var.assign(**{_keys.GENE_IDS: list(table.var_names)})
        return var, list(table.var[_keys.GENE_SYMBOLS].astype(str))
    symbols = list(table.var_names)
    if counts.suffix == ".h5" and _keys.GENE_IDS in table.var:
        with h5py.File(counts, "r") as file:
            features = file.get("matrix/features", {})
            if {"id", "name"} <= set(features):
                ids, names = (features[key].asstr()[:] for key in ("id", "name"))
                written = dict(zip(ids, names, strict=True))
                symbols = [written[gene] for gene in table.var[_keys.GENE_IDS]]
    return table.var, symbols


def _mpp(positions: NDArray[np.float64], table: AnnData) -> float:
    missing = [name for name in ("array_row", "array_col") if name not in table.obs]
    if missing or len(positions) < 3:
        raise ValueError(
            f"the µm per pixel cannot be derived from {len(positions)} spots with the columns "
            f"{_validate.listing(table.obs.columns)}: array_row and array_col of at least 3 are "
            "needed"
        )
    placed = np.all(np.isfinite(positions), axis=1)
    if not placed.all():
        raise ValueError(
            f"{int((~placed).sum())} of {len(placed)} spots have counts but no position, such as "
            f"{table.obs_names[~placed][0]}: are the positions those of another section?"
        )
    array = table.obs[["array_col", "array_row"]].to_numpy(dtype=float)
    # columns of one row are two apart, rows are closer by the height of the triangle
    array_um = array * (PITCH_UM / 2, PITCH_UM * np.sqrt(3) / 2)
    design = np.column_stack([array_um, np.ones(len(array_um))])
    affine, _, rank, _ = np.linalg.lstsq(design, positions, rcond=None)
    if rank < 3:
        raise ValueError("all spots lie in one line, so the µm per pixel cannot be derived")
    return float(1 / np.sqrt(abs(np.linalg.det(affine[:2]))))
