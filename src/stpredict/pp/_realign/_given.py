"""Motions that the user gives, as shifts or matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _validate
from stpredict.alignment import move_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section


def given_record(section: Section, shift_um: Any, transform: Any) -> dict[str, Any]:
    """Record of a shift or matrix that the user gives, checked."""
    name = section.name
    matrix = np.eye(3)
    if shift_um is not None:
        shift = _numbers("shift_um", shift_um[name] if isinstance(shift_um, Mapping) else shift_um)
        if shift.shape != (2,) or not np.isfinite(shift).all():
            raise ValueError(f"shift_um must be two numbers, x and y in µm: {shift.tolist()}")
        matrix[:2, 2] = shift
    else:
        values = transform[name] if isinstance(transform, Mapping) else transform
        matrix = _numbers("transform", values)
        rows = matrix.tolist()
        if matrix.shape != (3, 3) or not np.allclose(matrix[2], (0, 0, 1)):
            raise ValueError(f"transform must be an affine matrix (3, 3), last row 0 0 1: {rows}")
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:2, :2])) < 1e-9:
            raise ValueError(f"the transform of section {name!r} cannot be inverted: {rows}")
    moved = move_points(matrix, section.centers_um) / section.mpp
    if not _validate.is_inside(moved, section.shape_yx).any():
        given = "shift_um" if shift_um is not None else "transform"
        raise ValueError(f"{given} moves all spots of section {name!r} out of the image: use µm")
    return {"matrix": matrix, "moved": True}


def _numbers(name: str, values: object) -> NDArray[np.float64]:
    """Numbers of an argument, as an array."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, or numbers by section: {values!r}") from error
