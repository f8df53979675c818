"""Estimate and correct a misalignment between spots and image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from spatialdata.transformations import Affine, get_transformation, set_transformation

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._elements import matrix_of, um_system
from stpredict._sdata._provenance import read_steps, record, recorded
from stpredict._sdata._spot_table import SpotTable, open_table, require_key
from stpredict._sdata._steps import EmbedStep
from stpredict.alignment import move_points
from stpredict.pp._realign._estimate import estimate_record
from stpredict.pp._realign._given import given_record

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section


@checked
def realign(
    sdata: SpatialData,
    *,
    motion: Literal["translation", "rigid", "similarity"] = "translation",
    sections: Sequence[str] | None = None,
    max_shift_um: float | None = None,
    shift_um: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    transform: ArrayLike | Mapping[str, ArrayLike] | None = None,
    undo: bool = False,
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Move spots that are misaligned with the tissue they were measured on.

    The score is half the tissue contrast (under the outermost spots minus one pitch outside them)
    plus the explained variance (of total counts and three principal components in a regression on
    optical densities around the spots). A section is left unchanged unless the score increases by
    more than 0.03 and by more than chance: the largest increase of the explained variance for the
    section's expression rotated and mirrored in seven ways.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table of counts.
    motion
        Kind of motion; ``"rigid"`` also rotates by up to 5° about the centre of the spots, and
        ``"similarity"`` also scales by up to 5 %.
    sections
        Names of the sections to move; all by default.
    max_shift_um
        Maximum shift in x and in y, by default twice the distance between neighbouring spots, and
        at most half the shorter side of the image.
    shift_um, transform
        Shift (x, y) in µm or affine matrix (3, 3) to apply, or one for each section by name.
    undo
        Whether to undo an earlier realignment.
    table_name, copy
        Name of the table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Changes the transformations of ``shapes[<section>]``, never the coordinates, and drops
        embeddings and ``obs["tissue_fraction"]`` if a section moves. Writes
        ``uns["stpredict"]["realign"][<section>]``: ``matrix`` (3, 3) in µm, ``moved``, and, if the
        motion was estimated, both signals before and after, ``gain``, ``noise`` (the gain by
        chance), ``required`` (the minimum gain), and the ``surface`` over ``shifts_um``.

    Raises
    ------
    ValueError
        If a section is realigned already, or was not but is to be undone, has fewer than 20 spots,
        or spots outside the image; if a matrix cannot be inverted or moves all spots out of the
        image; or if ``max_shift_um`` is too large for an image.
    KeyError
        If there is no section of that name.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(misalignment_um=(80, -60))
    >>> stp.pp.realign(sdata)
    >>> stp.pp.realign(sdata, undo=True)
    """
    if sum([shift_um is not None, transform is not None, undo]) > 1:
        raise ValueError("give only one of shift_um=, transform= and undo=True")
    if max_shift_um is not None:
        _validate.positive("max_shift_um", max_shift_um, unit="µm")
    spots = open_table(sdata, table_name, copy=copy)
    selected = _selected_sections(spots, sections, shift_um if transform is None else transform)
    if max_shift_um is not None:
        _check_reach(selected, max_shift_um)
    previous = recorded(spots.table, _keys.REALIGN)
    records: dict[str, dict[str, Any]] = {}
    for section in selected:
        earlier = previous.get(section.name)
        if undo:
            records[section.name] = _undone(section.name, earlier)
        elif earlier and earlier["moved"]:
            raise ValueError(
                f"section {section.name!r} is realigned already: undo that first with "
                f"stp.pp.realign(sdata, sections=[{section.name!r}], undo=True)"
            )
        elif shift_um is None and transform is None:
            records[section.name] = estimate_record(spots, section, motion, max_shift_um)
        else:
            records[section.name] = given_record(section, shift_um, transform)
    # all checks have passed: write
    moved = [section for section in selected if records[section.name]["moved"]]
    for section in moved:
        move_shapes(spots.sdata, section, records[section.name]["matrix"])
    if moved:
        _drop_outdated(spots.table)
    motions = {
        name: values
        for name, values in {**previous, **records}.items()
        if isinstance(values, dict) and not (undo and name in records)  # not the version
    }
    if motions:
        record(spots.table, _keys.REALIGN, **motions)
    else:
        spots.table.uns[_keys.UNS].pop(_keys.REALIGN, None)
    for section in selected:
        info(f"realign {section.name}: {_summary(section, records[section.name], undo=undo)}")
    return spots.sdata if copy else None


def _selected_sections(
    spots: SpotTable, names: Sequence[str] | None, motions: Any
) -> list[Section]:
    """Sections to move; ``motions`` may be a mapping by section."""
    by_name = {section.name: section for section in spots.sections}
    option = "sections"
    if names is None and isinstance(motions, Mapping):
        option, names = "shift_um or transform", list(motions)
    elif names is None:
        names = list(by_name)
    names = _validate.name_list(option, [names] if isinstance(names, str) else names)
    for name in names:
        if name not in by_name:
            raise KeyError(
                f"sections=, shift_um= or transform= names {name!r}; sections: "
                f"{_validate.listing(by_name)}"
            )
        if isinstance(motions, Mapping):
            require_key(name, motions, what="the mapping from sections to motions")
    return [by_name[name] for name in names]


def _check_reach(sections: Sequence[Section], max_shift_um: float) -> None:
    """Require a range of shifts that leaves spots in every image."""
    for section in sections:
        most = min(section.shape_yx) * section.mpp / 2
        if max_shift_um > most:
            raise ValueError(
                f"max_shift_um={max_shift_um:g} is more than half the shorter side of the image of "
                f"section {section.name!r}: give at most {most:.0f} µm"
            )


def _undone(section: str, earlier: dict[str, Any] | None) -> dict[str, Any]:
    """Record of the inverse motion."""
    if earlier is None:
        raise ValueError(f"section {section!r} was not realigned, so nothing can be undone")
    matrix = np.linalg.inv(np.asarray(earlier["matrix"], dtype=float))
    return {"matrix": matrix, "moved": bool(earlier["moved"])}


def move_shapes(sdata: SpatialData, section: Section, matrix: NDArray[np.float64]) -> None:
    """Move the shapes in every coordinate system they share with the image."""
    shapes = sdata.shapes[section.name]
    shape_systems = get_transformation(shapes, get_all=True)
    image_systems = get_transformation(sdata.images[section.image], get_all=True)
    um = str(um_system(sdata.images[section.image], section.name))
    labels = {"image": f"images[{section.image!r}]", "shapes": f"shapes[{section.name!r}]"}
    from_um = np.linalg.inv(matrix_of(image_systems[um], what=labels["image"]))
    for system in shape_systems.keys() & image_systems.keys():
        # the motion is in µm: express it in the coordinates of this system
        um_to_system = matrix_of(image_systems[system], what=labels["image"]) @ from_um
        motion = um_to_system @ matrix @ np.linalg.inv(um_to_system)
        previous = matrix_of(shape_systems[system], what=labels["shapes"])
        moved = Affine(motion @ previous, ("x", "y"), ("x", "y"))
        set_transformation(shapes, moved, to_coordinate_system=system)


def _drop_outdated(table: AnnData) -> None:
    """Drop embeddings and tissue fractions, which were computed at the old positions."""
    dropped = []
    for slot in read_steps(table).embed:
        table.obsm.pop(_keys.subtiles(slot), None)
        if table.obsm.pop(slot, None) is not None:
            dropped.append(f"obsm[{slot!r}]")
    # the record goes with the embeddings, so that models do not accept them
    table.uns.get(_keys.UNS, {}).pop(EmbedStep.name, None)
    if _keys.TISSUE_FRACTION in table.obs:
        del table.obs[_keys.TISSUE_FRACTION]
        dropped.append(f"obs[{_keys.TISSUE_FRACTION!r}]")
    if dropped:
        info(f"realign: dropped {', '.join(dropped)}, computed at the old positions")


def _summary(section: Section, motion: dict[str, Any], *, undo: bool) -> str:
    if undo:
        return "undone" if motion["moved"] else "had not been moved"
    evidence = ""
    if "gain" in motion:
        text = " (score {gain:+.3f}, required: {required:.3f}; by chance up to {noise:.3f})"
        evidence = text.format(**motion)
    if not motion["moved"]:
        return f"left unchanged{evidence}"
    center = section.centers_um.mean(axis=0, keepdims=True)
    dx, dy = (move_points(motion["matrix"], center) - center)[0]
    angle = np.rad2deg(np.arctan2(motion["matrix"][1, 0], motion["matrix"][0, 0]))
    rotation = f", rotated by {angle:.1f}°" if abs(angle) > 0.05 else ""
    return f"moved by ({dx:.0f}, {dy:.0f}) µm{rotation}{evidence}"
