"""Export of a table with its images for functions that read AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata.models import TableModel

from stpredict import _keys
from stpredict._arguments import checked
from stpredict._sdata._spot_table import open_table
from stpredict.io._shared._small import small_image

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section


@checked
def to_anndata(sdata: SpatialData, *, table_name: str = "table") -> AnnData:
    """Export a table with small images, as squidpy and scanpy draw spots on tissue.

    Unlike :func:`spatialdata_io.experimental.to_legacy_anndata`, it exports tables of several
    sections, each on its own image.

    Parameters
    ----------
    sdata
        Sections with measured or predicted expression.
    table_name
        Name of the table, such as ``"predicted"``.

    Returns
    -------
    AnnData
        Copy of the table, with positions in pixels of the full resolution in ``obsm["spatial"]``,
        and for each section ``uns["spatial"][section]``: an image of at most 1,500 pixels, its
        scale, and the median diameter of the spots. For several sections, draw with
        ``library_key=`` the column of ``obs`` that names them.

    Raises
    ------
    KeyError
        If there is no such table.
    ValueError
        If the table annotates no shapes, or a section has no image.

    Examples
    --------
    >>> import squidpy as sq
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=600)
    >>> adata = stp.io.to_anndata(sdata)
    >>> sq.pl.spatial_scatter(adata, color="morphology_001", library_key="region")
    """
    spots = open_table(sdata, table_name)
    centers = np.empty((spots.table.n_obs, 2))
    libraries = {}
    for section in spots.sections:
        centers[section.rows] = section.centers
        libraries[section.name] = _library(section)
    table = spots.table.copy()
    del table.uns[TableModel.ATTRS_KEY]  # the shapes are not exported
    table.obsm[_keys.SPATIAL] = centers
    table.uns[_keys.SPATIAL] = libraries
    return table


def _library(section: Section) -> dict[str, Any]:
    """Image and scale of a section, under the names of Space Ranger."""
    image, factor = small_image(section)
    diameter_um = 2 * float(np.median(section.radius_um))
    return {
        "images": {"hires": image.transpose(1, 2, 0)},
        "scalefactors": {
            "tissue_hires_scalef": 1 / factor,
            "spot_diameter_fullres": diameter_um / section.mpp,
        },
    }
