"""Opening of a slide, and the spots that are placed on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._elements import um_system
from stpredict._sdata._images import only_image
from stpredict._sdata._spacing import spacing_of
from stpredict._sdata._spot_table import SpotTable, copy_of, open_table
from stpredict._sdata._wsi import attach_slide
from stpredict.io._read_slide import read_slide
from stpredict.models._stack import first_base
from stpredict.pp._grid import grid
from stpredict.pp._tissue._detect_tissue import detect_tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.models import Model
    from stpredict.models._records import TrainingSpots


def open_slide(slide: str | Path | SpatialData, *, mpp: float | None) -> SpatialData:
    """Read a file, or copy an object without its pixels."""
    if isinstance(slide, str | Path):
        return read_slide(slide, mpp=mpp)
    if mpp is not None:
        raise ValueError(
            "mpp= is for files; give that of an object with stp.io.register_um(sdata, section, "
            "image=…, mpp=…)"
        )
    attach_slide(slide)
    return copy_of(slide)


def place_spots(
    sdata: SpatialData,
    model: Model,
    *,
    pitch_um: float | None,
    image: str | None,
    table_name: str,
) -> SpotTable:
    """Open the table of a slide; without one, place spots on its tissue first."""
    if table_name not in sdata.tables:
        _place_grid(sdata, model, pitch_um=pitch_um, image=image, table_name=table_name)
    elif pitch_um is not None:
        raise ValueError(
            f"pitch_um={pitch_um:g} places new spots, but tables[{table_name!r}] has spots "
            "already: omit pitch_um=, or delete the table and its shapes"
        )
    return open_table(sdata, table_name)


def section_name(sdata: SpatialData, image: str | None, table_name: str) -> str:
    """Name of the one section of a slide, or of the one that spots will be placed on."""
    if table_name not in sdata.tables:
        return _image_and_section(sdata, image)[1]
    names = open_table(sdata, table_name).section_names
    if len(names) > 1:
        raise ValueError(
            f"the object has several sections: {_validate.listing(names)}. Predict them one by "
            "one, sdata.subset([section, image, table])"
        )
    return names[0]


def pitch_of(spots: SpotTable) -> float | None:
    """Distance between the spots of a slide in µm; None for a single place."""
    pitch = spacing_of(spots.sections[0].centers_um).pitch_um
    return float(f"{pitch:.4g}") if pitch > 0 else None


def write_back(opened: SpatialData, slide: SpatialData) -> None:
    """Write what was added to the copy of an object to the object itself."""
    for kind in ("images", "labels", "shapes", "tables"):
        elements, existing = getattr(opened, kind), getattr(slide, kind)
        for name, element in elements.items():
            if kind in ("images", "labels") and name in existing and existing[name] is element:
                continue
            existing.pop(name, None)  # SpatialData warns if an element is overwritten
            existing[name] = element


def _place_grid(
    sdata: SpatialData,
    model: Model,
    *,
    pitch_um: float | None,
    image: str | None,
    table_name: str,
) -> None:
    image, section = _image_and_section(sdata, image)
    layout: Literal["hexagonal", "square"] = "hexagonal"
    pitch, diameter = 100.0, 55.0
    trained = _training_spots(model)
    if trained is not None:
        # cells lie on no grid
        layout = "square" if trained.layout == "square" else "hexagonal"
        pitch, diameter = trained.pitch_um, trained.diameter_um
    elif pitch_um is None:
        info(
            f"predict_slide: the model does not report its spots: {layout}, {diameter:g} µm every "
            f"{pitch:g} µm, as Visium's"
        )
    pitch = pitch if pitch_um is None else pitch_um
    if _keys.tissue(image) not in sdata.labels:
        detect_tissue(sdata, [image], table_name=_keys.TABLE)
    # spots that overlap would hide each other
    diameter = min(diameter, pitch)
    grid(
        sdata, image, pitch_um=pitch, diameter_um=diameter, layout=layout, section=section,
        table_name=table_name,
    )  # fmt: skip


def _training_spots(model: Model) -> TrainingSpots | None:
    """Layout of the training spots, of a stack those of its first base."""
    return model.training.spots or first_base(model).training.spots


def _image_and_section(sdata: SpatialData, image: str | None) -> tuple[str, str]:
    """The image of a slide, and the name of the section on it, which its µm have."""
    image = only_image(sdata, image, scaled=True)
    section = _keys.section_of(image)
    system = um_system(sdata.images[image], section)
    return image, section if system is None else _keys.section_of_um(system) or section
