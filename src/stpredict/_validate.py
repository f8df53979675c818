"""Checks of arguments and data; a message says what is wrong, what was found and what to do."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Names that SpatialData can write; neither "." nor "..".
_SLOT_NAME = re.compile(r"(?!__)(?!\.{1,2}$)[\w.-]+")
_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})(\.\d+)?")  # of any species, with or without a version


def listing(names: Iterable[Any], *, most: int = 8) -> str:
    """Join names for a message, cut after the first few."""
    names = [str(name) for name in names]
    more = f", … ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def positive(name: str, value: float, *, unit: str = "") -> None:
    """Require a finite number above zero."""
    if not is_number(value) or value <= 0:
        in_unit = f" ({unit})" if unit else ""
        raise ValueError(f"{name} must be a number above 0{in_unit}: {value!r}")


def ascending(name: str, values: float | Sequence[float], *, unit: str) -> tuple[float, ...]:
    """Require one number above zero, or several that ascend, and return them."""
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes)
    numbers: tuple[Any, ...] = tuple(values) if is_list else (values,)  # type: ignore[arg-type]
    if not numbers:
        raise ValueError(f"{name}= is empty")
    others = [number for number in numbers if not isinstance(number, Real)]
    if others:
        kind = type(others[0]).__name__
        raise TypeError(f"{name} must be a finite number, not {kind}: {others[0]!r:.80}")
    for number in numbers:
        positive(name, number, unit=unit)
    if any(first >= second for first, second in itertools.pairwise(numbers)):
        raise ValueError(
            f"{name}={list(numbers)} must ascend, without repetition: {sorted(set(numbers))}"
        )
    return tuple(map(float, numbers))


def not_negative(name: str, value: float) -> None:
    """Require a finite number of at least zero."""
    if not is_number(value) or value < 0:
        raise ValueError(f"{name} must be a number of at least 0: {value!r}")


def whole_number(
    name: str, value: object, *, at_least: int = 1, at_most: int | None = None
) -> None:
    """Require a whole number in a range."""
    if not is_whole(value) or int(value) < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}: {value!r}")
    if at_most is not None and int(value) > at_most:
        raise ValueError(f"{name} must be at most {at_most}: {value!r}")


def seed(value: object) -> None:
    """Require a random seed that numpy, scikit-learn and torch all take."""
    whole_number("seed", value, at_least=0, at_most=2**32 - 1)


def share(name: str, value: float) -> None:
    """Require a number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1: {value!r}")


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are not."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer of more than 308 digits
        return False


def name_list(name: str, values: Iterable[Any]) -> list[str]:
    """Require a list of different names, not empty and not a single string."""
    if isinstance(values, str):
        raise TypeError(f"{name}={values!r} is one name; give a list: [{values!r}]")
    names = [str(value) for value in values]
    if not names:
        raise ValueError(f"{name}= is empty")
    unique_names(names, what=name)
    return names


def slot_name(name: str, value: object) -> str:
    """Require the name of a slot or table that SpatialData can write, and return it."""
    if not isinstance(value, str) or not _SLOT_NAME.fullmatch(value):
        raise ValueError(
            f"{name}={value!r} must be a name of letters, digits, '_', '.' and '-' that does not "
            "begin with '__'"
        )
    return value


def one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Require one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {listing(map(repr, choices), most=20)}")


def not_empty(section: str, n_spots: int) -> None:
    """Require a section with spots."""
    if n_spots == 0:
        raise ValueError(f"section {section!r} has no spots")


def unique_names(names: Iterable[Any], *, what: str) -> None:
    """Require names without repetition."""
    values, times = np.unique(np.asarray([str(name) for name in names]), return_counts=True)
    if (times > 1).any():
        raise ValueError(f"{what} are not unique, repeated: {listing(values[times > 1])}")


def _stored_values(matrix: Any, what: str) -> NDArray[Any]:
    """Values of a dense or sparse matrix of numbers, whose sparse format must be valid."""
    values = matrix.data if sp.issparse(matrix) else np.asarray(matrix)
    if values.dtype.kind not in "biuf":
        kind = "missing" if matrix is None else f"of the type {values.dtype}"
        raise TypeError(f"{what} must be numbers, but are {kind}")
    if sp.issparse(matrix) and matrix.format in ("csr", "csc"):
        try:
            matrix.check_format(full_check=True)  # scipy crashes on indices that are out of range
        except ValueError as error:
            problem = f"the sparse matrix of {what} is malformed ({error})"
            raise ValueError(f"{problem}. Write it again") from error
    return values


def _n_not_finite(values: NDArray[Any]) -> int:
    """Number of values that are NaN or infinite, or become so as float32."""
    if values.dtype.kind != "f":
        return 0
    return int(np.count_nonzero(~(np.abs(values) <= np.finfo(np.float32).max)))


def counts(matrix: Any, *, what: str) -> None:
    """Require finite values of at least zero."""
    values = _stored_values(matrix, what)
    n_nan = _n_not_finite(values)
    n_negative = int(np.count_nonzero(values < 0))
    if n_nan or n_negative:
        bad = f"{n_nan} values are NaN or infinite and {n_negative} are negative"
        raise ValueError(f"{what} must be finite and not negative, but {bad}")


def present(genes: Sequence[str], available: Any) -> None:
    """Require genes that are all available."""
    absent = [gene for gene in genes if gene not in available]
    if absent:
        why = why_absent(absent, available)
        raise KeyError(
            f"{len(absent)} of {len(genes)} genes are not in the table: {listing(absent)}; it has "
            f"{len(available)} genes, such as {listing(available[:3])}{why}"
        )


def without_version(gene: str) -> str:
    """Ensembl id without its version; other names as they are."""
    match = _ENSEMBL.fullmatch(gene)
    return match[1] if match else gene


def why_absent(absent: Iterable[str], available: Iterable[str]) -> str:
    """A clause on why genes are absent, as far as their names show it; else an empty string."""
    absent, available = [str(gene) for gene in absent], [str(gene) for gene in available]
    ids = [gene for gene in absent if _ENSEMBL.fullmatch(gene)]
    available_ids = [gene for gene in available if _ENSEMBL.fullmatch(gene)]
    n_ids, n_absent = len(ids), len(absent)
    if n_ids > n_absent / 2 and len(available_ids) < len(available) / 2:
        names = 'the table is named by symbols: read it with gene_names="ids"'
        return f". {n_ids} of the {n_absent} absent are Ensembl ids, {names}"
    if n_ids < n_absent / 2 and len(available_ids) > len(available) / 2:
        names = f'{n_absent - n_ids} of the {n_absent} absent are not: use gene_names="symbols"'
        return f". The table is named by Ensembl ids, {names}"
    for written, plain in (
        ("with another version of the Ensembl id", without_version),
        ("in another case, as in another species", str.upper),
    ):
        by_plain_name = {plain(gene): gene for gene in available}
        alike = [gene for gene in absent if plain(gene) in by_plain_name]
        if alike:
            example = f"{alike[0]}: {by_plain_name[plain(alike[0])]}"
            return f". {len(alike)} of the {n_absent} absent genes exist {written} ({example})"
    return ""


def finite(matrix: Any, *, what: str) -> None:
    """Require values without NaN or infinity, also as float32."""
    n_bad = _n_not_finite(_stored_values(matrix, what))
    if n_bad:
        raise ValueError(f"{what} has {n_bad} values that are NaN or infinite")


def is_inside(
    positions: NDArray[np.floating], shape_yx: Sequence[int]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether positions (x, y in pixels) lie within the image; NaN does not."""
    height, width = shape_yx
    inside = (positions >= 0) & (positions <= np.array([width, height]))
    return np.asarray(inside.all(axis=1))


def inside_image(
    positions: NDArray[np.floating],
    shape_yx: Sequence[int],
    *,
    section: str,
    hint: str = "Are x and y swapped? To drop such spots: stp.pp.filter_spots",
) -> None:
    """Require positions (x, y in pixels) within the image."""
    height, width = shape_yx
    inside = is_inside(positions, shape_yx)
    if not inside.all():
        x, y = positions[~inside][0]
        raise ValueError(
            f"{(~inside).sum()} of {len(positions)} spots of section {section!r} have NaN positions"
            f" or lie outside the image of {width} × {height} px (x × y), the first at x={x:g}, "
            f"y={y:g}. {hint}"
        )
