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
from spatialdata.transformations import get_transformation, set_transformation

from stpredict import _keys
from stpredict._sdata._provenance import record_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stpredict._sdata._sections import Section
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
        image = elements.get(section.image, spots.sdata.images[section.image])
        elements[section.image] = image = _with_system(image, section, name)
        for key in (_keys.normalized(section.image), _keys.tissue(section.image)):
            if key in spots.sdata:
                elements[key] = spots.sdata[key]
        instances = [f"{column}x{row}" for column, row in fine.index]
        systems = get_transformation(image, get_all=True)
        own = get_transformation(spots.sdata.shapes[section.name], get_all=True)
        elements[name] = ShapesModel.parse(
            fine.centers_um / section.mpp,
            geometry=0,
            radius=np.full(len(instances), resolution_um / section.mpp / 2),
            index=pd.Index(instances),
            transformations={key: systems[key] for key in (*own, _keys.um(name)) if key in systems},
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


def _with_system(image: Any, section: Section, name: str) -> Any:
    """The image with a coordinate system in µm for a new section; its pixels are shared."""
    systems = get_transformation(image, get_all=True)
    # a shallow copy shares the dictionary of transformations, which is therefore replaced
    image = image.copy(deep=False)
    systems = {**systems, _keys.um(name): systems[_keys.um(section.name)]}
    set_transformation(image, systems, set_all=True)
    return image
