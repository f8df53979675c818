"""Fine positions as sections of a SpatialData, on the images of the sections they cover."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import get_transformation

from stpredict import _keys
from stpredict._sdata._elements import um_system
from stpredict._sdata._provenance import record_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._superresolution._positions import FinePositions


def as_sections(
    spots: SpotTable,
    positions: Mapping[str, FinePositions],  # by section
    names: Mapping[str, str],  # names of the new sections, by section
    *,
    resolution_um: float,
) -> SpatialData:
    """A SpatialData with the positions as spots without genes; images are shared."""
    elements: dict[str, Any] = {}
    parts = []
    for section in spots.sections:
        fine, name = positions[section.name], names[section.name]
        image = elements[section.image] = spots.sdata.images[section.image]
        for key in (_keys.normalized(section.image), _keys.tissue(section.image)):
            if key in spots.sdata:
                elements[key] = spots.sdata[key]
        instances = [f"{column}x{row}" for column, row in fine.index]
        # no other system: several images may share it
        system = str(um_system(image, section.name))
        elements[name] = ShapesModel.parse(
            fine.centers_um / section.mpp,
            geometry=0,
            radius=np.full(len(instances), resolution_um / section.mpp / 2),
            index=pd.Index(instances),
            transformations={system: get_transformation(image, system)},
        )
        obs = pd.DataFrame(index=[f"{name}_{instance}" for instance in instances])
        obs[_keys.REGION] = pd.Categorical([name] * len(obs))
        obs[_keys.INSTANCE] = instances
        obs[_keys.SPOT] = spots.table.obs_names[section.rows[fine.spot]].astype(str)
        parts.append((obs, fine.centers_um / section.mpp))
    obs = pd.concat([obs for obs, _ in parts])
    obs[_keys.REGION] = pd.Categorical(obs[_keys.REGION], list(names.values()))
    table = AnnData(
        sp.csr_matrix((len(obs), 0), dtype=np.float32),
        obs=obs,
        obsm={_keys.SPATIAL: np.concatenate([centers for _, centers in parts])},
    )
    table = TableModel.parse(table, list(names.values()), _keys.REGION, _keys.INSTANCE)
    stain = spots.steps.normalize_stain
    if stain is not None:  # without the record, its images would be refused
        skipped = tuple(names.get(section, section) for section in stain.skipped)
        record_step(table, replace(stain, skipped=skipped))
    return SpatialData.init_from_elements({**elements, _keys.TABLE: table})
