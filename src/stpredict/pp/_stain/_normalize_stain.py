"""One stain for all sections."""

from __future__ import annotations

import copy as copying
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation, set_transformation
from xarray import DataArray, DataTree

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _provenance, _sections
from stpredict.pp._stain import _fit as _stain_fit
from stpredict.pp._stain import _map as _stain_map
from stpredict.pp._stain._pixels import DegenerateError
from stpredict.pp._tissue._find import tissue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData
    from squidpy.experimental.im import StainReference


def normalize_stain(
    sdata: SpatialData,
    *,
    method: Literal["macenko", "vahadane", "reinhard"] = "macenko",
    reference: str | Sequence[str] | Mapping[str, Any] | StainReference | None = None,
    degenerate: Literal["error", "skip"] = "error",
    copy: bool = False,
) -> SpatialData | None:
    """Give the H&E images of all sections the same stain.

    The stain of each section is estimated from a sample of its tissue at about 2 µm per pixel,
    and mapped to the reference's as the image is read, chunk by chunk. Tissue is what
    ``labels["<image>_tissue"]`` marks, or, where :func:`stpredict.pp.detect_tissue` was not run,
    what it would find. The glass of every section becomes white. :func:`stpredict.pp.embed` then
    reads the normalised images, and a model trained on them asks :func:`stpredict.pp.prepare` to
    normalise new sections likewise. To go back to the raw images, delete the normalised ones:
    ``del sdata.images["…_normalized"]``.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table.
    method
        ``"macenko"``: colour and strength of haematoxylin and eosin, from the extreme hues;
        ``"vahadane"``: the same, from a sparse non-negative factorisation; ``"reinhard"``: means
        and deviations of the colours. The latter takes a section with more nuclei for one with
        more haematoxylin.
    reference
        Whose stain all get: a section, or several, of which the stains are averaged (default: all
        sections), or a stain fitted before, by the same method: a squidpy ``StainReference``, or
        one that was recorded in ``uns["stpredict"]["normalize_stain"]["reference"]`` or in
        ``model.recipe["embed"]["stain"]``.
    degenerate
        Where the stain cannot be told (almost no tissue, one dye only, greyscale): ``"error"``, or
        ``"skip"`` to leave the section's image as it is.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``images["<image>_normalized"]`` (c, y, x) uint8, lazy, with the levels and the
        transformations of the original, and ``uns["stpredict"]["normalize_stain"]`` of
        ``tables["table"]``: ``method``, ``reference`` (the stain, in lists), ``reference_sections``
        (unless a fitted reference was given), ``stains`` (each section's own, the colour of its
        glass, and whether its ``tissue`` was ``"stored"`` or ``"found"``) and ``left_alone``
        (sections that were skipped).

    Raises
    ------
    ValueError
        If the stain of a section cannot be told, or that of all the reference's sections, a
        reference is of another method, or labels of tissue do not lie on their image.
    KeyError
        If there is no such section.
    TypeError
        If ``reference`` is none of these.

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
    _validate.one_of("method", method, _stain_fit.METHODS)
    _validate.one_of("degenerate", degenerate, ("error", "skip"))
    sdata = _sections.copy_of(sdata) if copy else sdata
    found = _sections.sections(sdata)
    chosen, given = _reference(reference, [section.name for section in found], method)

    stains: dict[str, _stain_fit.Stain] = {}
    left_alone: dict[str, str] = {}
    for section in found:
        try:
            stains[section.name] = _stain_fit.fit_section(
                section, tissue(sdata, section.image), method
            )
        except DegenerateError as error:
            if degenerate == "error":
                raise
            left_alone[section.name] = error.reason
    if given is None:
        usable = [stains[name].fitted for name in chosen if name in stains]
        if not usable:
            raise ValueError(
                f"the stain of no reference section can be told: {_reasons(left_alone, chosen)}"
            )
        given = _stain_fit.average(usable)

    images = {
        _keys.normalized(section.image): _image(sdata, section, stains[section.name], given)
        for section in found
        if section.name in stains
    }
    for section in found:
        name = _keys.normalized(section.image)
        if name in sdata.images:
            del sdata.images[name]  # of an earlier call
    for name, image in images.items():
        sdata.images[name] = image
    _provenance.record(
        _sections.table_of(sdata),
        "normalize_stain",
        method=method,
        reference=_stain_fit.to_plain(given),
        reference_sections=[name for name in chosen if name in stains] or None,
        stains={
            section.name: {
                **_stain_fit.to_plain(stains[section.name].fitted),
                "glass": stains[section.name].white.tolist(),
                "tissue": "stored" if _keys.tissue(section.image) in sdata.labels else "found",
            }
            for section in found
            if section.name in stains
        },
        left_alone=list(left_alone),
    )
    whose = _validate.listing(chosen) if chosen else "the reference given"
    tell(f"normalize_stain: {len(stains)} sections to the stain of {whose} ({method})")
    if left_alone:
        tell(f"normalize_stain: left as they are: {_reasons(left_alone, list(left_alone))}")
    return sdata if copy else None


def _reasons(left_alone: dict[str, str], names: list[str]) -> str:
    return "; ".join(f"{name} ({left_alone[name]})" for name in names)


def _reference(
    reference: object, names: list[str], method: str
) -> tuple[list[str], StainReference | None]:
    """Sections to fit the reference to, or the reference that was fitted before."""
    from squidpy.experimental.im import StainReference

    if isinstance(reference, Mapping | StainReference):
        return [], _stain_fit.from_plain(reference, method)
    if reference is None:
        return names, None
    try:
        chosen = [reference] if isinstance(reference, str) else list(reference)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(
            "reference= must be a section, a list of sections, or a fitted reference: "
            f"{type(reference).__name__}"
        ) from None
    if not chosen:
        raise ValueError("reference= is empty")
    absent = [name for name in chosen if name not in names]
    if absent:
        raise KeyError(
            f"no section {_validate.listing(map(repr, absent))}; sections: "
            f"{_validate.listing(names)}"
        )
    return list(dict.fromkeys(chosen)), None


def _image(
    sdata: SpatialData,
    section: _sections.Section,
    stain: _stain_fit.Stain,
    reference: StainReference,
) -> DataArray | DataTree:
    """The normalised twin of an image: level by level, so that a coarse one is read alone."""
    element = sdata.images[section.image]

    def mapped(level: DataArray) -> DataArray:
        upright = level.transpose("c", "y", "x")
        twin = upright.copy(data=_stain_map.apply(upright.data, stain, reference))
        twin.attrs = copying.deepcopy(level.attrs)  # holds the transformations
        return twin

    if isinstance(element, DataTree):
        levels = {
            scale: element[scale].ds.assign(image=mapped(element[scale].ds["image"]))
            for scale in element.children
        }
        twin: DataArray | DataTree = DataTree.from_dict(levels)
    else:
        twin = mapped(element)
    transformations = get_transformation(element, get_all=True)
    set_transformation(twin, copying.deepcopy(transformations), set_all=True)
    Image2DModel().validate(twin)
    return twin
