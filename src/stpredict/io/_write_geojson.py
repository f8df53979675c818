"""Export of spots with their expression to QuPath."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import shapely
from spatialdata.models import get_table_keys

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._atomic import replaced, require_folder
from stpredict._sdata._elements import outlines_px
from stpredict._sdata._spot_table import open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Colour of the class of the spots; QuPath's maps of measurements replace it.
_COLOR = [31, 119, 180]
_BATCH = 1000  # spots at a time


@checked
def write_geojson(
    sdata: SpatialData,
    path: str | Path,
    *,
    genes: str | Sequence[str] | None = None,
    section: str | None = None,
    table_name: str = "table",
) -> None:
    """Write spots and their expression as GeoJSON, which QuPath imports as detections.

    Drag the file onto the slide in QuPath, and draw a gene with *Measure > Show measurement maps*.

    Parameters
    ----------
    sdata
        Sections with measured or predicted expression.
    path
        File to write; an existing file is replaced when the new one is complete.
    genes
        Genes to write, by default all of the table.
    section
        Name of the section; needed for tables of several sections, as each slide has its own file.
    table_name
        Name of the table, such as ``"predicted"``.

    Returns
    -------
    None
        Writes one feature per spot: its outline in pixels of the full resolution, its id as
        ``name``, the name of the table as ``classification``, and the expression as
        ``measurements``. Values that are NaN are left out.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If the folder does not exist, or ``path`` is one.
    KeyError
        If there is no such table or gene.
    ValueError
        If the table has several sections and none is named, or there is no such section.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import geopandas as gpd
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> path = Path(mkdtemp()) / "spots.geojson"
    >>> stp.io.write_geojson(sdata, path, genes=["morphology_001"])
    >>> len(gpd.read_file(path)) == sdata.tables["table"].n_obs
    True
    """
    path = Path(path)
    require_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder: give the name of a file")
    spots = open_table(sdata, table_name)
    genes = spots.table.var_names if genes is None else genes
    names = _validate.name_list("genes", [genes] if isinstance(genes, str) else genes)
    _validate.present(names, spots.table.var_names)
    if section is None and len(spots.section_names) > 1:
        raise ValueError(
            f"tables[{table_name!r}] has {len(spots.section_names)} sections "
            f"({_validate.listing(spots.section_names)}): name one with section="
        )
    part = spots.section(spots.section_names[0] if section is None else section)
    _, _, instance_key = get_table_keys(spots.table)
    ids = spots.table.obs[instance_key].to_numpy()[part.rows]
    outlines = outlines_px(sdata, part.name, part.image, ids)
    outlines = shapely.transform(outlines, lambda corners: np.round(corners, 2))
    expression = spots.table[:, names].X
    with replaced(path) as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for start in range(0, len(part.rows), _BATCH):
            batch = slice(start, start + _BATCH)
            values = expression[part.rows[batch]]
            dense = values.toarray() if sp.issparse(values) else np.asarray(values)
            rows = zip(ids[batch], shapely.to_geojson(outlines[batch]), dense, strict=True)
            lines = [_feature(*row, genes=names, label=table_name) for row in rows]
            file.write((",\n" if start else "\n") + ",\n".join(lines))
        file.write("\n]}\n")


def _feature(
    name: object, outline: str, values: NDArray[Any], *, genes: Sequence[str], label: str
) -> str:
    """One detection, as QuPath itself exports it."""
    # six digits are more than float32 holds and keep files small; JSON has no NaN
    measurements = {
        gene: float(f"{value:.6g}")
        for gene, value in zip(genes, values.tolist(), strict=True)
        if np.isfinite(value)
    }
    properties = {
        "objectType": "detection",
        "name": str(name),
        "classification": {"name": label, "color": _COLOR},
        "measurements": measurements,
    }
    return f'{{"type": "Feature", "geometry": {outline}, "properties": {json.dumps(properties)}}}'
