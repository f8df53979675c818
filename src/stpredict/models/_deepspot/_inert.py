"""Names that a pickle of a published model may contain, and the plain data that replace them.

Names are never imported. They are looked up in the tables below, whose functions make plain data
from plain arguments. No class of torch, scikit-learn, Lightning or DeepSpot is used.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stpredict.models._deepspot._archive import DTYPES

#: Modules of DeepSpot's classes, from the newest to the oldest version.
_PACKAGES = ("deepspot.spot", "deepspot.cell", "deepspot")
_NETWORKS = ("DeepSpot", "DeepCell", "Phi", "Rho")
_LOSSES = (
    "mse",
    "l1",
    "huber",
    "cosine",
    "pearson",
    "poisson",
    "mse_pearson",
    "mse_cosine",
    "l1_cosine",
    "huber_cosine",
)


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
    """A dtype of numpy: kind and size; the byte order is set by its state."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        """The dtype, which is never that of objects."""
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class Array:
    """An array of numpy, whose values are set by its state."""

    values: NDArray[Any] | None = None


def _only(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def require(condition: bool, what: str) -> None:
    """Raise unless something is used as in torch, numpy and DeepSpot."""
    if not condition:
        raise ValueError(f"{what} is used as torch, numpy and DeepSpot never use it")


def _is_size(value: Any) -> bool:
    is_short = type(value) is tuple and len(value) <= 8
    return is_short and all(type(n) is int and 0 <= n < 2**40 for n in value)


def _set(items: Any = ()) -> set[Any]:
    require(type(items) in (list, tuple) and all(map(_only(str, int), items)), "set")
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


def _parameter(data: Any, _grad: Any, _hooks: Any) -> Tensor:
    require(isinstance(data, Tensor), "torch._utils._rebuild_parameter")
    tensor: Tensor = data
    return tensor


def _dtype(code: Any, _align: Any = False, _copy: Any = True) -> DType:
    kinds = ("f2", "f4", "f8", "b1", *(f"{sign}{n}" for sign in "iu" for n in (1, 2, 4, 8)))
    if code not in kinds:
        shown = repr(code)[:40] if type(code) is str else type(code).__name__
        raise ValueError(f"numpy.dtype({shown}) is refused: numbers are read, objects never")
    return DType(code)


def _scalar(dtype: Any, data: Any) -> Any:
    require(isinstance(dtype, DType) and type(data) is bytes, "a scalar of numpy")
    require(len(data) == dtype.numpy().itemsize, "a scalar of numpy")
    return np.frombuffer(data, dtype.numpy())[0].item()


def _array(kind: Any, _shape: Any, _code: Any) -> Array:
    require(kind == Name("numpy", "ndarray"), "numpy's _reconstruct")
    return Array()


def fill_array(array: Array, state: Any) -> None:
    """Set the values of an array from ``(version, shape, dtype, is_fortran, bytes)``."""
    require(type(state) is tuple and len(state) == 5, "an array of numpy")
    _, shape, dtype, is_fortran, data = state
    is_plain = _is_size(shape) and isinstance(dtype, DType) and type(data) is bytes
    require(is_plain, "an array of numpy")
    if math.prod(shape) * dtype.numpy().itemsize != len(data):
        raise ValueError(f"an array of numpy claims the shape {shape} for {len(data)} bytes")
    flat = np.frombuffer(data, dtype.numpy())
    array.values = flat.reshape(shape, order="F" if is_fortran is True else "C")


def fill_dtype(dtype: DType, state: Any) -> None:
    """Set the byte order of a dtype from ``(version, order, None, None, None, -1, -1, 0)``."""
    require(type(state) is tuple and len(state) >= 5, "numpy.dtype")
    require(state[1] in ("<", ">", "|", "=") and state[2:5] == (None, None, None), "numpy.dtype")
    dtype.order = state[1]


def _empty(kind: Callable[[], Any], name: str) -> Callable[..., Any]:
    """Constructor that takes no arguments."""

    def make(*arguments: Any) -> Any:
        require(not arguments, name)
        return kind()

    return make


def _operation(value: Any) -> str:
    require(value in ("sum", "max", "none", "mean"), "Operation")
    return str(value)


def _device(*_: Any) -> None:
    """Devices are ignored: weights are read to the CPU."""


_NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")

#: Functions that replace the calls in a pickle.
CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): _empty(OrderedDict, "collections.OrderedDict"),
    Name("_codecs", "encode"): _encode,
    Name("torch", "device"): _device,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("numpy", "dtype"): _dtype,
    **{Name(core, "scalar"): _scalar for core in _NUMPY_CORES},
    **{Name(core, "_reconstruct"): _array for core in _NUMPY_CORES},
    **{Name(python, "set"): _set for python in ("builtins", "__builtin__")},
    **{Name(python, "bytes"): _empty(bytes, "bytes") for python in ("builtins", "__builtin__")},
    **{Name(python, "getattr"): _getattr for python in ("builtins", "__builtin__")},
    **{Name(f"{package}.model", "Operation"): _operation for package in _PACKAGES},
}

#: Classes whose objects are read as `Foreign`.
CLASSES: frozenset[Name] = frozenset(
    [Name(f"{package}.model", name) for package in _PACKAGES for name in _NETWORKS]
    + [
        Name(f"torch.nn.modules.{module}", name)
        for module, name in (
            ("container", "ModuleList"),
            ("container", "Sequential"),
            ("linear", "Linear"),
            ("dropout", "Dropout"),
            ("activation", "ReLU"),
        )
    ]
    + [
        Name(f"sklearn.preprocessing.{module}", name)
        for module in ("_data", "data")
        for name in ("StandardScaler", "RobustScaler")
    ]
)

#: Subclasses of dict, which are read as plain dictionaries.
MAPPINGS: frozenset[Name] = frozenset(
    Name(module, "AttributeDict")
    for module in (
        "lightning.fabric.utilities.data",
        "lightning_fabric.utilities.data",
        "lightning.pytorch.utilities.parsing",
        "pytorch_lightning.utilities.parsing",
    )
)

#: Names that occur as values only, and are never called.
MENTIONED: frozenset[Name] = frozenset(
    [Name("numpy", "ndarray")]
    + [Name("torch", name) for name in DTYPES]
    + [Name("torch", str(dtype).removeprefix("torch.")) for dtype in DTYPES.values()]
    + [
        Name(f"{package}.loss", f"loss_{loss}_function")
        for package in _PACKAGES
        for loss in _LOSSES
    ]
)

ALLOWED = frozenset(CALLS) | CLASSES | MAPPINGS | MENTIONED
