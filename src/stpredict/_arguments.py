"""Arguments of public functions, checked against their annotations."""

from __future__ import annotations

import ast
import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Real
from reprlib import repr as shorten
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp

from stpredict._validate import is_number, is_whole

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def checked(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Check numbers, names, choices and classes before a public function runs.

    Arrays, tables and other types that have no single class are left to the function.
    """
    signature = inspect.signature(function)
    kinds = {
        name: kinds
        for name, parameter in signature.parameters.items()
        if (kinds := _kinds(ast.parse(str(parameter.annotation), mode="eval").body))
    }

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:  # the message of the function itself has its name
            return function(*args, **kwargs)
        for name, value in arguments.items():
            if name in kinds:
                _check(name, value, kinds[name])
        return function(*args, **kwargs)

    return call


@dataclass(frozen=True)
class _Kind:
    """One type of an annotation."""

    label: str  # for messages, after "must be"
    accepts: Callable[[Any], bool]
    choices: tuple[Any, ...] = ()
    is_list: bool = False


def _is_array(value: Any) -> bool:
    is_matrix = sp.issparse(value) or isinstance(value, list | tuple | pd.DataFrame)
    # arrays of numpy, dask and pandas; a scalar of numpy is none
    return is_matrix or (hasattr(value, "dtype") and not isinstance(value, np.generic))


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list | tuple):
        try:
            return np.asarray(value).dtype.kind in "biuf"
        except ValueError:  # rows of different lengths
            return False
    return _is_array(value)


def _list_of(kind: _Kind, label: str = "", *, length: int | None = None) -> _Kind:
    def accepts(value: Any) -> bool:
        is_list = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
        return is_list and length in (None, len(value)) and all(map(kind.accepts, value))

    return _Kind(label or f"a list of {kind.label}", accepts, kind.choices, is_list=length is None)


def _has_base(name: str) -> Callable[[Any], bool]:
    """Whether a class or one of its bases has a name: most are imported for type checking only."""
    return lambda value: any(base.__name__ == name for base in type(value).__mro__)


_KINDS = {
    "None": _Kind("None", lambda value: value is None),
    "str": _Kind("a string", lambda value: isinstance(value, str)),
    "bool": _Kind("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "int": _Kind("a whole number", is_whole),
    "float": _Kind("a finite number", is_number),
    "SpatialData": _Kind("a SpatialData (read one with stp.io)", _has_base("SpatialData")),
    "Model": _Kind("a fitted model (of stp.tl.fit_* or stp.models.load)", _has_base("Model")),
    "Path": _Kind("a path", lambda value: isinstance(value, os.PathLike)),
    "Mapping": _Kind("a mapping", lambda value: isinstance(value, Mapping)),
    "dict": _Kind("a dictionary", lambda value: isinstance(value, dict)),
    "Callable": _Kind("a function", callable),
}
_KINDS["Sequence[str]"] = _list_of(_KINDS["str"], "a list of strings")
_KINDS["Sequence[SpatialData]"] = _list_of(_KINDS["SpatialData"], "a list of SpatialData objects")
_FILE = _Kind("a path", lambda value: isinstance(value, str | os.PathLike))
_KINDS["Sequence[str | Path]"] = _list_of(_FILE, "a list of files")
_NUMBERS = (_KINDS["int"], _KINDS["float"])
_KINDS["Values"] = _Kind("an array", _is_array)  # also labels
_NUMERIC = _Kind("an array of numbers", _is_numeric)
_KINDS |= dict.fromkeys(("ArrayLike", "Floats", "Graph"), _NUMERIC)
#: Annotations of arrays of anything, and of lists of something else than strings.
_UNCHECKED = {"Any", "Array", "NDArray", "Sequence"}


def _kinds(annotation: ast.expr) -> tuple[_Kind, ...]:
    """Types of an annotation, any of which is accepted; none if one of them is not checked."""
    if isinstance(annotation, ast.BinOp):  # left | right
        left, right = _kinds(annotation.left), _kinds(annotation.right)
        return (*left, *right) if left and right else ()
    if isinstance(annotation, ast.Subscript):
        outer, inner = _name(annotation.value), ast.unparse(annotation.slice)
        if outer == "Literal":
            choices = ast.literal_eval(annotation.slice)
            choices = choices if isinstance(choices, tuple) else (choices,)
            label = "one of " + ", ".join(map(repr, choices))
            return (_Kind(label, functools.partial(_is_one_of, choices=choices), choices),)
        if outer == "Sequence" and inner.startswith("Literal["):
            return (_list_of(_kinds(annotation.slice)[0]),)
        if outer == "tuple" and isinstance(annotation.slice, ast.Tuple):
            parts = [_kinds(part)[0] for part in annotation.slice.elts]
            label = f"({', '.join(part.label for part in parts)})"
            return (_list_of(parts[0], label, length=len(parts)),)
        name = f"{outer}[{inner}]" if f"{outer}[{inner}]" in _KINDS else outer
    else:
        name = _name(annotation)
    if name in _UNCHECKED:
        return ()
    return (_KINDS.get(name) or _class_named(name),)


def _name(annotation: ast.expr) -> str:
    """Last part of a dotted name."""
    return ast.unparse(annotation).rpartition(".")[2]


def _is_one_of(value: Any, choices: tuple[Any, ...]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _class_named(name: str) -> _Kind:
    return _Kind(("an " if name[0] in "AEIOU" else "a ") + name, _has_base(name))


def _check(name: str, value: Any, kinds: tuple[_Kind, ...]) -> None:
    if any(kind.accepts(value) for kind in kinds):
        return
    expected = " or ".join(kind.label for kind in kinds)
    if isinstance(value, str) and kinds[0].is_list:
        raise TypeError(f"{name}={value!r} is one name; give a list: [{value!r}]")
    if isinstance(value, str | list | tuple) and any(kind.choices for kind in kinds):
        raise ValueError(f"{name}={value!r} is not {expected}")
    if isinstance(value, Real) and any(kind in _NUMBERS for kind in kinds):
        raise ValueError(f"{name} must be {expected}: {value!r}")
    raise TypeError(f"{name} must be {expected}, not {type(value).__name__}: {shorten(value)}")
