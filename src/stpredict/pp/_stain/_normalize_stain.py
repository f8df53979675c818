"""Normalise the stain of all sections."""

from __future__ import annotations

import copy as copying
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation, set_transformation
from xarray import DataArray, DataTree

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import importing_squidpy, info
from stpredict._sdata._parse import parse
from stpredict._sdata._provenance import record_step
from stpredict._sdata._reference_stain import ReferenceStain
from stpredict._sdata._spot_table import SpotTable, open_table, require_key
from stpredict._sdata._steps import NormalizeStainStep
from stpredict.pp._stain import _fit
from stpredict.pp._stain._map import map_image
from stpredict.pp._tissue._find import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from squidpy.experimental.im import StainReference


@checked
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

    The stain of each section is estimated from a sample of its tissue
    (:func:`stpredict.pp.detect_tissue`, which is run if needed) at about 2 µm per pixel, and mapped
    to the reference lazily, when the image is read. The glass of every section becomes white.
    :func:`stpredict.pp.embed` then reads the normalised images, unless they are deleted:
    ``del sdata.images["…_normalized"]``.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table.
    method
        Colour and strength of haematoxylin and eosin from the extreme hues (``"macenko"``) or a
        sparse factorisation (``"vahadane"``), or means and deviations of the colours
        (``"reinhard"``), which confuse many nuclei with strong haematoxylin.
    reference
        Target stain: that of a section, the average over several sections (default: all), or one
        fitted before by the same method: a squidpy ``StainReference``, ``model.recipe.stain``, or
        the record in ``uns["stpredict"]["normalize_stain"]["reference"]``.
    degenerate
        ``"error"``, or ``"skip"`` to leave sections unchanged whose stain cannot be estimated
        (almost no tissue, one dye only, greyscale).
    table_name, copy
        Name of the table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``images["<image>_normalized"]`` (c, y, x) uint8, lazy, with the levels and
        transformations of the original, and ``uns["stpredict"]["normalize_stain"]``: ``reference``,
        ``reference_sections`` (if it was fitted), ``stains`` (of each section, with the colour of
        its ``glass`` and the origin of its ``tissue`` mask) and ``skipped`` sections.

    Raises
    ------
    ValueError
        If a stain cannot be estimated or is of another method, or tissue labels are not aligned.
    KeyError, TypeError
        If there is no such section, or ``reference`` has another type.

    References
    ----------
    Macenko et al., ISBI (2009), 1107. Vahadane et al., IEEE Trans. Med. Imaging 35 (2016), 1962.
    Reinhard et al., IEEE Comput. Graph. Appl. 21 (2001), 34.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800, stain_variation=1.0)
    >>> stp.pp.normalize_stain(sdata, reference="S1")
    >>> sorted(sdata.images)
    ['S1_image', 'S1_image_normalized', 'S2_image', 'S2_image_normalized']
    """
    spots = open_table(sdata, table_name, copy=copy)
    sections, stain = _parse_reference(reference, spots.section_names, method)
    skip = degenerate == "skip"
    map_sections(spots, method=method, sections=sections, reference=stain, skip=skip)
    return spots.sdata if copy else None


def map_sections(
    spots: SpotTable,
    *,
    method: _fit.Method,
    sections: Sequence[str] = (),
    reference: StainReference | None = None,
    skip: bool = False,
) -> None:
    """Map an opened table's images to a stain: ``reference``, or the average of some sections."""
    stains: dict[str, _fit.SectionStain] = {}
    skipped: dict[str, str] = {}
    for section in spots.sections:
        try:
            tissue = tissue_mask(spots.sdata, section.image)
            stains[section.name] = _fit.fit_section(section, tissue, method)
        except _fit.DegenerateError as error:
            if not skip:
                raise
            skipped[section.name] = error.reason
    reference_sections = [name for name in sections if name in stains]
    if reference is None:
        if not reference_sections:
            reasons = _reasons({name: skipped[name] for name in sections})
            raise ValueError(f"the stain of no reference section can be estimated: {reasons}")
        reference = _fit.average_stain([stains[name].stain for name in reference_sections])
    elements, labels = spots.sdata.images, spots.sdata.labels
    records = {}
    # all checks have passed: write
    for section in spots.sections:
        key = _keys.normalized(section.image)
        elements.pop(key, None)  # of an earlier call
        if section.name in stains:
            fitted = stains[section.name]
            elements[key] = _normalized_image(elements[section.image], fitted, reference)
            origin = "stored" if _keys.tissue(section.image) in labels else "detected"
            plain = _fit.to_plain(fitted.stain)
            records[section.name] = {**plain, "glass": fitted.white.tolist(), "tissue": origin}
    step = NormalizeStainStep(
        reference=parse(ReferenceStain, _fit.to_plain(reference)),
        reference_sections=tuple(reference_sections) or None,
        skipped=tuple(skipped),
    )
    record_step(spots.table, step, stains=records)
    target = _validate.listing(sections) if sections else "the given reference"
    info(f"normalize_stain: {len(stains)} sections to the stain of {target} ({method})")
    if skipped:
        info(f"normalize_stain: left unchanged: {_reasons(skipped)}")


def _reasons(skipped: dict[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in skipped.items())


def _parse_reference(
    reference: object, available: list[str], method: str
) -> tuple[list[str], StainReference | None]:
    """Sections to fit the reference to, or a reference that was fitted before."""
    with importing_squidpy():
        from squidpy.experimental.im import StainReference

    if isinstance(reference, Mapping | ReferenceStain | StainReference):
        return [], _fit.to_stain(reference, method)
    if reference is None:
        return available, None
    if not isinstance(reference, Iterable):
        raise TypeError(f"reference= must be sections or a fitted stain: {reference!r}")
    names = list(dict.fromkeys([reference] if isinstance(reference, str) else reference))
    if not names:
        raise ValueError("reference= is empty")
    for name in names:
        require_key(name, available, what="reference: the list of sections")
    return names, None


def _normalized_image(
    image: DataArray | DataTree, stain: _fit.SectionStain, reference: StainReference
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
    systems = copying.deepcopy(get_transformation(image, get_all=True))
    set_transformation(normalized, systems, set_all=True)
    Image2DModel().validate(normalized)
    return normalized
