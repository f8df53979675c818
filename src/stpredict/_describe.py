"""Functions and data as text, equal in every session, which changes with code and values."""

from __future__ import annotations

import dataclasses
import dis
import hashlib
from collections.abc import Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: Values of an outer function that a function closes over as settings; others may be its notes.
_SETTINGS = (*_PLAIN, tuple, FunctionType, partial, torch.nn.Module)


def describe(value: Any, *, inside: tuple[int, ...] = ()) -> str:
    """Describe a function, its arguments, or any value; equal in every session.

    Functions and classes are described by their name and code, modules also by their parameters,
    other objects by their attributes.
    """
    if isinstance(value, _PLAIN):
        return repr(value)
    if id(value) in inside:  # an object that holds itself
        return "…"
    each = partial(describe, inside=(*inside, id(value)))
    if isinstance(value, partial):
        arguments = [each(part) for part in value.args]
        arguments += [f"{name}={each(part)}" for name, part in sorted(value.keywords.items())]
        return f"{each(value.func)}({', '.join(arguments)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{each(key)}: {each(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(each, value)) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(each, value))) + "}"
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype}{tuple(value.shape)} {hash_values(array)}"
    if isinstance(value, np.ndarray | pd.Series | pd.Index | pd.DataFrame) or sp.issparse(value):
        return f"{type(value).__name__} {hash_values(value)}"
    if isinstance(value, MethodType):
        return f"{each(value.__self__)}.{each(value.__func__)}"
    if isinstance(value, FunctionType):
        return f"{_name(value)} {_hash(_code(value.__code__), each(_settings(value)))}"
    if isinstance(value, type):
        # not those of torch, whose methods other libraries replace while they run
        own = [kind for kind in value.__mro__ if kind.__module__.partition(".")[0] != "torch"]
        methods = [getattr(part, "__func__", part) for kind in own for part in _parts(kind)]
        return f"{_name(value)} {_hash(*(_code(part.__code__) for part in methods))}"
    if dataclasses.is_dataclass(value):  # without cached properties
        fields = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
        return f"{_name(type(value))}{each(fields)}"
    if not hasattr(value, "__dict__"):
        return repr(value)
    return f"{each(type(value))}{each(vars(value))}"


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _parts(kind: type) -> list[Any]:
    """Functions and methods that a class defines itself."""
    parts = [getattr(part, "fget", part) for part in vars(kind).values()]
    return [part for part in parts if isinstance(getattr(part, "__func__", part), FunctionType)]


def _settings(function: FunctionType) -> list[Any]:
    """Defaults of a function, and values that it closes over and does not assign."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    instructions = dis.get_instructions(function.__code__)
    assigned = {part.argval for part in instructions if part.opname == "STORE_DEREF"}
    closed = {
        name: cell.cell_contents
        for name, cell in cells
        if name not in assigned and isinstance(_content(cell), _SETTINGS)
    }
    return [function.__defaults__, function.__kwdefaults__, closed]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return ...


def _code(code: CodeType) -> str:
    """Instructions, names and constants of a function."""
    constants = [_code(x) if isinstance(x, CodeType) else describe(x) for x in code.co_consts]
    return _hash(code.co_code.hex(), *code.co_names, *constants)


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def hash_values(values: Any) -> str:
    """Hash an array, a sparse matrix, or a column, index or table of pandas."""
    if isinstance(values, pd.DataFrame):
        return hash_values(np.array([[str(name), hash_values(values[name])] for name in values]))
    if isinstance(values, pd.Series | pd.Index) and not isinstance(values.dtype, np.dtype):
        values = values.astype(str)  # categories and strings change their type when written
    if not sp.issparse(values):
        return hash_arrays(np.asarray(values))
    matrix = sp.csr_matrix(values).sorted_indices()
    # scipy picks the type of the indices by the size of the matrix
    places = [part.astype(np.int64) for part in (matrix.indices, matrix.indptr)]
    return hash_arrays(np.array(matrix.shape), matrix.data, *places)


def hash_arrays(*arrays: NDArray[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        array = np.ascontiguousarray(array if array.dtype.kind in "biufcSU" else array.astype(str))
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
