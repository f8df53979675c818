"""Normalise the stain of all sections."""

from __future__ import annotations

import copy as copying
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation, set_transformation
from xarray import DataArray, DataTree

from stpredict import _keys, _validate
from stpredict._log import info
from stpredict._sdata._provenance import record_step
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import NormalizeStainStep, ReferenceStain, parse
from stpredict.pp._stain._fit import (
    Method,
    SectionStain,
    average_stain,
    fit_section,
    to_plain,
    to_stain,
)
from stpredict.pp._stain._map import map_image
from stpredict.pp._stain._pixels import DegenerateError
from stpredict.pp._tissue._find import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from squidpy.experimental.im import StainReference

    from stpredict._sdata._spot_table import SpotTable


def normalize_stain(
    sdata: SpatialData,
    *,
    method: Literal["macenko", "vahadane", "reinhard"] = "macenko",
    reference: str
    | Sequence[str]
    | Mapping[str, Any]
    | ReferenceStain
    | StainReference
    | None = None,
    degenerate: Literal["error", "skip"] = "error",
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Give the H&E images of all sections the same stain.

    The stain of each section is estimated from a sample of its tissue at about 2 µm per pixel, and
    mapped to the reference lazily, when the image is read. Tissue is taken from
    ``labels["<image>_tissue"]`` if they exist, else detected as :func:`stpredict.pp.detect_tissue`
    does. The glass of every section becomes white. :func:`stpredict.pp.embed` then reads the
    normalised images, and :func:`stpredict.pp.prepare` normalises new sections to the reference of
    a model that was trained on them. To return to the raw images, delete the normalised ones:
    ``del sdata.images["…_normalized"]``.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table.
    method
        ``"macenko"``: colour and strength of haematoxylin and eosin, from the extreme hues;
        ``"vahadane"``: the same, from a sparse non-negative factorisation; ``"reinhard"``: means
        and deviations of the colours, which confuses many nuclei with strong haematoxylin.
    reference
        Target stain: that of a section, the average over several sections (default: all), or a
        stain fitted before by the same method: a squidpy ``StainReference``,
        ``model.recipe.stain``, or the record in
        ``uns["stpredict"]["normalize_stain"]["reference"]``.
    degenerate
        Action if the stain of a section cannot be estimated (almost no tissue, one dye only,
        greyscale): ``"error"``, or ``"skip"`` to leave its image unchanged.
    table_name
        Name of the table.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``images["<image>_normalized"]`` (c, y, x) uint8, lazy, with the levels and the
        transformations of the original, and ``uns["stpredict"]["normalize_stain"]`` of
        ``tables[table_name]``: ``reference`` (the stain, in lists), ``reference_sections`` (unless
        a fitted reference was given), ``stains`` (of each section, with the colour of its ``glass``
        and whether its ``tissue`` was ``"stored"`` or ``"detected"``) and ``skipped`` sections.

    Raises
    ------
    ValueError
        If the stain of a section, or of all reference sections, cannot be estimated, the reference
        was fitted by another method, or tissue labels are not aligned with their image.
    KeyError
        If there is no such section.
    TypeError
        If ``reference`` has another type.

    References
    ----------
    Macenko et al., *A method for normalizing histology slides for quantitative analysis*, ISBI
    (2009), 1107. Vahadane et al., *Structure-preserving color normalization and sparse stain
    separation for histological images*, IEEE Trans. Med. Imaging 35 (2016), 1962. Reinhard et al.,
    *Color transfer between images*, IEEE Comput. Graph. Appl. 21 (2001), 34.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800, stain_variation=1.0)
    >>> stp.pp.normalize_stain(sdata, reference="S1")
    normalize_stain: 2 sections to the stain of S1 (macenko)
    >>> sorted(sdata.images)
    ['S1_image', 'S1_image_normalized', 'S2_image', 'S2_image_normalized']
    """
    _validate.one_of("method", method, get_args(Method))
    _validate.one_of("degenerate", degenerate, ("error", "skip"))
    spots = open_table(sdata, table_name, copy=copy)
    sections, stain = _parse_reference(reference, spots.section_names, method)
    map_sections(
        spots, method=method, sections=sections, reference=stain, skip=degenerate == "skip"
    )
    return spots.sdata if copy else None


def map_sections(
    spots: SpotTable,
    *,
    method: Method,
    sections: Sequence[str] = (),
    reference: StainReference | None = None,
    skip: bool = False,
) -> None:
    """Map an opened table's images to a stain: ``reference``, or the average of some sections."""
    stains, skipped = _fit_sections(spots, method, skip=skip)
    reference_sections = [name for name in sections if name in stains]
    if reference is None:
        if not reference_sections:
            raise ValueError(
                "the stain of no reference section can be estimated: "
                f"{_reasons({name: skipped[name] for name in sections})}"
            )
        reference = average_stain([stains[name].stain for name in reference_sections])
    elements, labels = spots.sdata.images, spots.sdata.labels
    # all checks have passed: write
    for section in spots.sections:
        key = _keys.normalized(section.image)
        elements.pop(key, None)  # of an earlier call
        if section.name in stains:
            elements[key] = _normalized_image(
                elements[section.image], stains[section.name], reference
            )
    record_step(
        spots.table,
        NormalizeStainStep(
            reference=parse(ReferenceStain, to_plain(reference)),
            reference_sections=tuple(reference_sections) or None,
            skipped=tuple(skipped),
        ),
        stains={
            section.name: {
                **to_plain(stains[section.name].stain),
                "glass": stains[section.name].white.tolist(),
                "tissue": "stored" if _keys.tissue(section.image) in labels else "detected",
            }
            for section in spots.sections
            if section.name in stains
        },
    )
    target = _validate.listing(sections) if sections else "the given reference"
    info(f"normalize_stain: {len(stains)} sections to the stain of {target} ({method})")
    if skipped:
        info(f"normalize_stain: left unchanged: {_reasons(skipped)}")


def _fit_sections(
    spots: SpotTable, method: Method, *, skip: bool
) -> tuple[dict[str, SectionStain], dict[str, str]]:
    """Stains of the sections, and why the stain of others could not be estimated."""
    stains: dict[str, SectionStain] = {}
    skipped: dict[str, str] = {}
    for section in spots.sections:
        try:
            tissue = tissue_mask(spots.sdata, section.image)
            stains[section.name] = fit_section(section, tissue, method)
        except DegenerateError as error:
            if not skip:
                raise
            skipped[section.name] = error.reason
    return stains, skipped


def _reasons(skipped: dict[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in skipped.items())


def _parse_reference(
    reference: object, available: list[str], method: str
) -> tuple[list[str], StainReference | None]:
    """Sections to fit the reference to, or a reference that was fitted before."""
    from squidpy.experimental.im import StainReference

    if isinstance(reference, Mapping | ReferenceStain | StainReference):
        return [], to_stain(reference, method)
    if reference is None:
        return available, None
    try:
        names = [reference] if isinstance(reference, str) else list(reference)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(
            "reference= must be a section, a list of sections, or a fitted stain, not "
            f"{type(reference).__name__}"
        ) from None
    if not names:
        raise ValueError("reference= is empty")
    absent = [name for name in names if name not in available]
    if absent:
        raise KeyError(
            f"no section {_validate.listing(map(repr, absent))}; sections: "
            f"{_validate.listing(available)}"
        )
    return list(dict.fromkeys(names)), None


def _normalized_image(
    image: DataArray | DataTree, stain: SectionStain, reference: StainReference
) -> DataArray | DataTree:
    """The normalised image, level by level, so that a coarse level can be read alone."""

    def mapped(level: DataArray) -> DataArray:
        upright = level.transpose("c", "y", "x")
        result = upright.copy(data=map_image(upright.data, stain, reference))
        result.attrs = copying.deepcopy(level.attrs)  # holds the transformations
        return result

    if isinstance(image, DataTree):
        levels = {
            scale: image[scale].ds.assign(image=mapped(image[scale].ds["image"]))
            for scale in image.children
        }
        normalized: DataArray | DataTree = DataTree.from_dict(levels)
    else:
        normalized = mapped(image)
    transformations = get_transformation(image, get_all=True)
    set_transformation(normalized, copying.deepcopy(transformations), set_all=True)
    Image2DModel().validate(normalized)
    return normalized
