"""Names that a pickle of a published model may contain, and the plain data that replace them.

Names are never imported. They are looked up in the tables below, whose functions make plain data
from plain arguments. No class of torch, scikit-learn, Lightning or DeepSpot is used.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stpredict.models._deepspot._archive import DTYPES

#: Modules of DeepSpot's classes, from the newest to the oldest version.
_PACKAGES = ("deepspot.spot", "deepspot.cell", "deepspot")
_LOSSES = ("mse", "l1", "huber", "cosine", "pearson", "poisson")
_SUMS_OF_LOSSES = ("mse_pearson", "mse_cosine", "l1_cosine", "huber_cosine")


@dataclass(frozen=True)
class Name:
    """A name in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Foreign:
    """An object of a foreign class: the name of the class, and the attributes of the object."""

    name: Name
    state: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class DType:
    """A dtype of numpy, never that of objects; the byte order is set by its state."""

    numpy: np.dtype[Any]


@dataclass(eq=False)
class Array:
    """An array of numpy, whose values are set by its state."""

    values: NDArray[Any] | None = None


def require(condition: bool, what: str) -> None:
    """Raise unless something is used as in torch, numpy and DeepSpot."""
    if not condition:
        raise ValueError(f"{what} is used as torch, numpy and DeepSpot never use it")


def _is_size(value: Any) -> bool:
    is_short = type(value) is tuple and len(value) <= 8
    return is_short and all(type(n) is int and 0 <= n < 2**40 for n in value)


def _set(items: Any = ()) -> set[Any]:
    is_plain = type(items) in (list, tuple) and all(type(item) in (str, int) for item in items)
    require(is_plain, "set")
    return set(items)


def _encode(text: Any, encoding: Any) -> bytes:
    require(type(text) is str and encoding == "latin1", "_codecs.encode")
    return bytes(text, "latin-1")


def _getattr(owner: Any, attribute: Any) -> str:
    """Name of a model's forward method, or of a member of DeepSpot's enumeration."""
    of_model = isinstance(owner, Foreign) and owner.name.name in ("DeepSpot", "DeepCell")
    of_operation = isinstance(owner, Name) and owner.name == "Operation"
    is_allowed = type(attribute) is str and (
        (of_model and attribute.startswith(("_forward_spot", "_forward_cell")))
        or (of_operation and attribute in ("SUM", "MAX", "NONE", "MEAN"))
    )
    require(is_allowed, f"getattr(…, {attribute!r:.40})" if type(attribute) is str else "getattr")
    return str(attribute)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, *_: Any
) -> Tensor:
    is_plain = isinstance(storage, Tensor) and storage.ndim == 1 and type(offset) is int
    require(is_plain and _is_size(size) and _is_size(stride), "torch._utils._rebuild_tensor_v2")
    require(len(size) == len(stride) and all(size), "torch._utils._rebuild_tensor_v2")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset < 0 or max(math.prod(size), last + 1) > len(storage):
        raise ValueError(f"a tensor of {size} claims more than the {len(storage)} stored elements")
    return storage.as_strided(size, stride, offset)


def _parameter(data: Any, _grad: Any, _hooks: Any) -> Any:
    require(isinstance(data, Tensor), "torch._utils._rebuild_parameter")
    return data


def _dtype(code: Any, _align: Any = False, _copy: Any = True) -> DType:
    kinds = ("f2", "f4", "f8", "b1", *(f"{sign}{n}" for sign in "iu" for n in (1, 2, 4, 8)))
    if code not in kinds:
        shown = repr(code)[:40] if type(code) is str else type(code).__name__
        raise ValueError(f"numpy.dtype({shown}) is refused: numbers are read, objects never")
    return DType(np.dtype(code))


def _scalar(dtype: Any, data: Any) -> Any:
    require(isinstance(dtype, DType) and type(data) is bytes, "a scalar of numpy")
    require(len(data) == dtype.numpy.itemsize, "a scalar of numpy")
    return np.frombuffer(data, dtype.numpy)[0].item()


def _array(kind: Any, _shape: Any, _code: Any) -> Array:
    require(kind == Name("numpy", "ndarray"), "numpy's _reconstruct")
    return Array()


def fill_array(array: Array, state: Any) -> None:
    """Set the values of an array from ``(version, shape, dtype, is_fortran, bytes)``."""
    require(type(state) is tuple and len(state) == 5, "an array of numpy")
    _, shape, dtype, is_fortran, data = state
    require(_is_size(shape) and type(data) is bytes, "an array of numpy")
    require(isinstance(dtype, DType), "an array of numpy")
    if math.prod(shape) * dtype.numpy.itemsize != len(data):
        raise ValueError(f"an array of numpy claims the shape {shape} for {len(data)} bytes")
    flat = np.frombuffer(data, dtype.numpy)
    array.values = flat.reshape(shape, order="F" if is_fortran is True else "C")


def fill_dtype(dtype: DType, state: Any) -> None:
    """Set the byte order of a dtype from ``(version, order, None, None, None, -1, -1, 0)``."""
    require(type(state) is tuple and len(state) >= 5, "numpy.dtype")
    require(state[1] in ("<", ">", "|", "=") and state[2:5] == (None, None, None), "numpy.dtype")
    dtype.numpy = dtype.numpy.newbyteorder(state[1])


def _ordered_dict(*items: Any) -> OrderedDict[Any, Any]:
    require(not items, "collections.OrderedDict")
    return OrderedDict()


def _bytes(*values: Any) -> bytes:
    require(not values, "bytes")
    return b""


def _operation(value: Any) -> str:
    require(value in ("sum", "max", "none", "mean"), "Operation")
    return str(value)


def _device(*_: Any) -> None:
    """Devices are ignored: weights are read to the CPU."""


def _names(modules: Iterable[str], *names: str) -> frozenset[Name]:
    return frozenset(Name(module, name) for module in modules for name in names)


# packages moved these modules between versions
_NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUILTINS = ("builtins", "__builtin__")
_MODELS = tuple(f"{package}.model" for package in _PACKAGES)
_SCALERS = ("sklearn.preprocessing._data", "sklearn.preprocessing.data")

#: Functions that replace the calls in a pickle.
CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): _ordered_dict,
    Name("_codecs", "encode"): _encode,
    Name("torch", "device"): _device,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("numpy", "dtype"): _dtype,
    **dict.fromkeys(_names(_NUMPY_CORES, "scalar"), _scalar),
    **dict.fromkeys(_names(_NUMPY_CORES, "_reconstruct"), _array),
    **dict.fromkeys(_names(_BUILTINS, "set"), _set),
    **dict.fromkeys(_names(_BUILTINS, "bytes"), _bytes),
    **dict.fromkeys(_names(_BUILTINS, "getattr"), _getattr),
    **dict.fromkeys(_names(_MODELS, "Operation"), _operation),
}

#: Classes whose objects are read as `Foreign`.
CLASSES: frozenset[Name] = frozenset().union(
    _names(_MODELS, "DeepSpot", "DeepCell", "Phi", "Rho"),
    _names(_SCALERS, "StandardScaler", "RobustScaler"),
    _names(["torch.nn.modules.container"], "ModuleList", "Sequential"),
    _names(["torch.nn.modules.linear"], "Linear"),
    _names(["torch.nn.modules.dropout"], "Dropout"),
    _names(["torch.nn.modules.activation"], "ReLU"),
)

#: Subclasses of dict, which are read as plain dictionaries.
MAPPINGS = _names(
    [f"{package}.utilities.data" for package in ("lightning.fabric", "lightning_fabric")]
    + [f"{package}.utilities.parsing" for package in ("lightning.pytorch", "pytorch_lightning")],
    "AttributeDict",
)

#: Names that occur as values only, and are never called.
MENTIONED: frozenset[Name] = frozenset().union(
    _names(["numpy"], "ndarray"),
    _names(["torch"], *DTYPES, *(str(dtype).removeprefix("torch.") for dtype in DTYPES.values())),
    _names(
        [f"{package}.loss" for package in _PACKAGES],
        *(f"loss_{loss}_function" for loss in (*_LOSSES, *_SUMS_OF_LOSSES)),
    ),
)

ALLOWED = frozenset(CALLS) | CLASSES | MAPPINGS | MENTIONED
