"""Spots moved to where the data say they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stpredict import _keys, _validate
from stpredict._log import tell
from stpredict._sdata import _provenance, _sections
from stpredict.alignment import MOTIONS, estimate_motion, move_points, pitch_of
from stpredict.pp._realign._evidence_maps import evidence_of
from stpredict.pp._realign._moved import drop_outdated, move_shapes
from stpredict.pp._tissue._find import tissue

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from spatialdata import SpatialData

#: Below this, neither a tissue's outline nor a regression says anything.
_LEAST_SPOTS = 20
#: Furthest automatic shift, in distances of neighbouring spots.
_REACH_PITCHES = 2.0


def realign(
    sdata: SpatialData,
    *,
    motion: Literal["translation", "rigid", "similarity"] = "translation",
    sections: Sequence[str] | None = None,
    max_shift_um: float | None = None,
    shift_um: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    transform: ArrayLike | Mapping[str, ArrayLike] | None = None,
    undo: bool = False,
    copy: bool = False,
) -> SpatialData | None:
    """Move spots that lie beside the tissue they measure.

    The motion of each section is estimated from two signals. Spots lie on tissue and, where tissue
    ends, none was measured: the tissue under the outermost spots less that one pitch beside them.
    And what was measured agrees with what the image shows: the variance of total counts and of
    three principal components that optical densities around the spots explain in a linear
    regression. Half the first and the second make the score, which is searched coarse to fine.
    Where one signal is useless (no edge of tissue in sight, or uniform tissue), it is flat and the
    other decides.

    A section is left alone unless the score grows by more than 0.03 (sections in their places
    gain up to 0.02) and by more than chance adds to it: the largest growth of the explained
    variance when the same search is given the section's expression turned and mirrored in seven
    ways.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table of counts.
    motion
        ``"translation"``; ``"rigid"``, which also rotates by up to 5° about the middle of the
        spots; ``"similarity"``, which also scales by up to 5 %.
    sections
        Names of the sections to move, by default all.
    max_shift_um
        Furthest shift in x and in y, by default twice the distance of neighbouring spots.
    shift_um
        Move by this, (x, y) in µm, instead of estimating; or the shift of each section by name.
    transform
        Move by this affine matrix, (3, 3), from µm to µm, x before y, instead of estimating; or
        the matrix of each section by name.
    undo
        Take back an earlier realignment.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Changes the transformations of ``shapes[<section>]``, never the coordinates. Writes
        ``uns["stpredict"]["realign"][<section>]``: ``matrix`` (3, 3) in µm, ``moved``, and, where
        it was estimated, both signals before and after, ``gain``, ``noise`` (by chance),
        ``required`` (what the gain had to exceed), and the ``surface`` of the score over
        ``shifts_um``. Drops what was made at the old positions of sections that
        move: embeddings and ``obs["tissue_fraction"]``.

    Raises
    ------
    ValueError
        If a section is realigned already, or is to be taken back and was not; if a matrix cannot
        be inverted; if a section has fewer than 20 spots, or spots outside the image.
    KeyError
        If there is no section of that name.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(misalignment_um=(80, -60))
    >>> stp.pp.realign(sdata)
    realign S1: moved by (..., ...) µm (score +..., required: ...; by chance up to ...)
    >>> stp.pp.realign(sdata, undo=True)
    realign S1: taken back
    """
    _validate.one_of("motion", motion, MOTIONS)
    if sum([shift_um is not None, transform is not None, undo]) > 1:
        raise ValueError("give one of shift_um=, transform= and undo=True")
    if max_shift_um is not None:
        _validate.positive("max_shift_um", max_shift_um, unit="µm")
    sdata = _sections.copy_of(sdata) if copy else sdata
    found = _chosen(sdata, sections, shift_um if transform is None else transform)
    known = _provenance.recorded(_sections.table_of(sdata), _keys.REALIGN)
    if undo:
        records = {section.name: _taken_back(section.name, known) for section in found}
    else:
        for section in found:
            if known.get(section.name, {}).get("moved"):
                raise ValueError(
                    f"section {section.name!r} is realigned already: take that back first with "
                    f"stp.pp.realign(sdata, sections=[{section.name!r}], undo=True)"
                )
        if shift_um is not None or transform is not None:
            records = {s.name: _given(s.name, shift_um, transform) for s in found}
        else:
            records = {s.name: _estimated(sdata, s, motion, max_shift_um) for s in found}
    _store(sdata, found, records, undo=undo)
    for section in found:
        tell(f"realign {section.name}: {_told(section, records[section.name], undo=undo)}")
    return sdata if copy else None


def _chosen(sdata: SpatialData, names: Sequence[str] | None, given: Any) -> list[_sections.Section]:
    found = {section.name: section for section in _sections.sections(sdata)}
    if names is None:
        names = list(given) if isinstance(given, Mapping) else list(found)
    elif isinstance(names, str):
        names = [names]
    for name in names:
        if name not in found:
            raise KeyError(f"no section {name!r}; sections: {_validate.listing(found)}")
        if isinstance(given, Mapping) and name not in given:
            raise KeyError(
                f"no motion is given for section {name!r}, only for: {_validate.listing(given)}"
            )
    _validate.unique_names(names, what="sections")
    return [found[name] for name in names]


def _taken_back(section: str, known: dict[str, Any]) -> dict[str, Any]:
    if section not in known:
        raise ValueError(f"section {section!r} was not realigned, there is nothing to take back")
    matrix = np.linalg.inv(np.asarray(known[section]["matrix"], dtype=float))
    return {"matrix": matrix, "moved": bool(known[section]["moved"])}


def _given(section: str, shift_um: Any, transform: Any) -> dict[str, Any]:
    matrix = np.eye(3)
    if shift_um is not None:
        shift = shift_um[section] if isinstance(shift_um, Mapping) else shift_um
        shift = np.asarray(shift, dtype=float)
        if shift.shape != (2,) or not np.isfinite(shift).all():
            raise ValueError(f"shift_um must be two numbers, x and y in µm: {shift.tolist()}")
        matrix[:2, 2] = shift
    else:
        given = transform[section] if isinstance(transform, Mapping) else transform
        matrix = np.asarray(given, dtype=float)
        if matrix.shape != (3, 3) or not np.allclose(matrix[2], (0, 0, 1)):
            raise ValueError(
                f"transform must be an affine matrix (3, 3), its last row 0 0 1: {matrix.tolist()}"
            )
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:2, :2])) < 1e-9:
            raise ValueError(
                f"the transform of section {section!r} cannot be inverted: {matrix.tolist()}"
            )
    return {"matrix": matrix, "moved": True}


def _estimated(
    sdata: SpatialData, section: _sections.Section, motion: str, max_shift_um: float | None
) -> dict[str, Any]:
    _validate.inside_image(section.centers, section.shape_yx, section=section.name)
    if len(section.rows) < _LEAST_SPOTS:
        raise ValueError(
            f"section {section.name!r} has {len(section.rows)} spots; at least {_LEAST_SPOTS} are "
            "needed to estimate a motion: give shift_um= or transform="
        )
    counts = _sections.table_of(sdata).X[section.rows]
    _validate.counts(counts, what=f"counts of section {section.name!r}")
    reach = max_shift_um or _REACH_PITCHES * pitch_of(section.centers_um)
    evidence = evidence_of(section, counts, tissue(sdata, section.image))
    found = estimate_motion(evidence, kind=motion, max_shift=reach)
    return {
        "matrix": found.matrix if found.is_better else np.eye(3),
        "moved": found.is_better,
        "motion": motion,
        "gain": found.gain,
        "noise": found.noise,
        "required": found.required,
        **_signals("before", found.before),
        **_signals("after", found.after),
        "shifts_um": found.shifts,
        "surface": found.surface,
    }


def _signals(when: str, signals: tuple[float, float]) -> dict[str, float]:
    return {f"tissue_contrast_{when}": signals[0], f"explained_variance_{when}": signals[1]}


def _store(
    sdata: SpatialData,
    found: list[_sections.Section],
    records: dict[str, dict[str, Any]],
    *,
    undo: bool,
) -> None:
    table = _sections.table_of(sdata)
    moved = [section for section in found if records[section.name]["moved"]]
    for section in moved:
        move_shapes(sdata, section, records[section.name]["matrix"])
    steps = table.uns.setdefault(_keys.UNS, {})
    kept = {k: v for k, v in dict(steps.get(_keys.REALIGN, {})).items() if k not in records}
    kept.pop("stpredict_version", None)
    if not undo:
        kept |= records
    if kept:
        _provenance.record(table, _keys.REALIGN, **kept)
    else:
        steps.pop(_keys.REALIGN, None)
    if moved:
        drop_outdated(sdata)


def _told(section: _sections.Section, record: dict[str, Any], *, undo: bool) -> str:
    if undo:
        return "taken back" if record["moved"] else "had not been moved"
    evidence = (
        f" (score {record['gain']:+.3f}, required: {record['required']:.3f}; by chance up to "
        f"{record['noise']:.3f})"
        if "gain" in record
        else ""
    )
    if not record["moved"]:
        return f"left alone{evidence}"
    middle = section.centers_um.mean(axis=0, keepdims=True)
    dx, dy = (move_points(record["matrix"], middle) - middle)[0]
    turn = np.rad2deg(np.arctan2(record["matrix"][1, 0], record["matrix"][0, 0]))
    turned = f", turned by {turn:.1f}°" if abs(turn) > 0.05 else ""
    return f"moved by ({dx:.0f}, {dy:.0f}) µm{turned}{evidence}"
