"""What a pickle of a published model may name, and the inert things that stand for it.

No name is ever looked up: each stands in a table here, with a function of this module that makes
plain data from plain arguments. No class of torch, scikit-learn, Lightning or DeepSpot is touched.
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

#: Modules that DeepSpot's classes were in, oldest last.
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
    """A name that a pickle mentions."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Foreign:
    """An object of a foreign class: its name, and the attributes it had."""

    name: Name
    state: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class DType:
    """A dtype of numpy: kind and size; the byte order comes with its state."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        """Give the dtype, which is never one of objects."""
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class Array:
    """An array of numpy, whose values come with its state."""

    values: NDArray[Any] | None = None


def _only(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def take(wanted: bool, what: str) -> None:
    """Raise unless something is used as torch, numpy and DeepSpot use it."""
    if not wanted:
        raise ValueError(f"{what} is used as torch, numpy and DeepSpot never use it")


def _is_size(value: Any) -> bool:
    few = type(value) is tuple and len(value) <= 8
    return few and all(type(n) is int and 0 <= n < 2**40 for n in value)


def _set(items: Any = ()) -> set[Any]:
    take(type(items) in (list, tuple) and all(map(_only(str, int), items)), "set")
    return set(items)


def _encode(text: Any, encoding: Any) -> bytes:
    take(type(text) is str and encoding == "latin1", "_codecs.encode")
    return bytes(text, "latin-1")


def _getattr(owner: Any, attribute: Any) -> str:
    """The bound method that a published model keeps, and members of an enumeration: their name."""
    of_model = isinstance(owner, Foreign) and owner.name.name in ("DeepSpot", "DeepCell")
    of_operation = isinstance(owner, Name) and owner.name == "Operation"
    allowed = type(attribute) is str and (
        (of_model and attribute.startswith(("_forward_spot", "_forward_cell")))
        or (of_operation and attribute in ("SUM", "MAX", "NONE", "MEAN"))
    )
    take(allowed, f"getattr(…, {attribute!r:.40})" if type(attribute) is str else "getattr")
    return str(attribute)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, *_: Any
) -> Tensor:
    plain = isinstance(storage, Tensor) and storage.ndim == 1 and type(offset) is int
    take(plain and _is_size(size) and _is_size(stride), "torch._utils._rebuild_tensor_v2")
    take(len(size) == len(stride) and all(size), "torch._utils._rebuild_tensor_v2")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset < 0 or max(math.prod(size), last + 1) > len(storage):
        raise ValueError(f"a tensor of {size} claims more than the {len(storage)} of its storage")
    return storage.as_strided(size, stride, offset)


def _parameter(data: Any, _grad: Any, _hooks: Any) -> Tensor:
    take(isinstance(data, Tensor), "torch._utils._rebuild_parameter")
    tensor: Tensor = data
    return tensor


def _dtype(code: Any, _align: Any = False, _copy: Any = True) -> DType:
    kinds = ("f2", "f4", "f8", "b1", *(f"{sign}{n}" for sign in "iu" for n in (1, 2, 4, 8)))
    if code not in kinds:
        shown = repr(code)[:40] if type(code) is str else type(code).__name__
        raise ValueError(f"numpy.dtype({shown}) is refused; numbers are read, objects never")
    return DType(code)


def _scalar(dtype: Any, data: Any) -> Any:
    take(isinstance(dtype, DType) and type(data) is bytes, "a scalar of numpy")
    take(len(data) == dtype.numpy().itemsize, "a scalar of numpy")
    return np.frombuffer(data, dtype.numpy())[0].item()


def _array(kind: Any, _shape: Any, _code: Any) -> Array:
    take(kind == Name("numpy", "ndarray"), "numpy's _reconstruct")
    return Array()


def fill_array(array: Array, state: Any) -> None:
    """Give an array its values, from ``(version, shape, dtype, is_fortran, bytes)``."""
    take(type(state) is tuple and len(state) == 5, "an array of numpy")
    _, shape, dtype, is_fortran, data = state
    take(_is_size(shape) and isinstance(dtype, DType) and type(data) is bytes, "an array of numpy")
    if math.prod(shape) * dtype.numpy().itemsize != len(data):
        raise ValueError(f"an array of numpy claims the shape {shape} for {len(data)} bytes")
    flat = np.frombuffer(data, dtype.numpy())
    array.values = flat.reshape(shape, order="F" if is_fortran is True else "C")


def fill_dtype(dtype: DType, state: Any) -> None:
    """Give a dtype its byte order, from ``(version, order, None, None, None, -1, -1, 0)``."""
    take(type(state) is tuple and len(state) >= 5, "numpy.dtype")
    take(state[1] in ("<", ">", "|", "=") and state[2:5] == (None, None, None), "numpy.dtype")
    dtype.order = state[1]


def _nothing(kind: Callable[[], Any], name: str) -> Callable[..., Any]:
    def make(*given: Any) -> Any:
        take(not given, name)
        return kind()

    return make


def _operation(value: Any) -> str:
    take(value in ("sum", "max", "none", "mean"), "Operation")
    return str(value)


def _device(*_: Any) -> None:
    """Weights are read to the CPU, wherever they were."""


_NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")

#: What may be called: by qualified name, a function of this module on plain arguments.
CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): _nothing(OrderedDict, "collections.OrderedDict"),
    Name("_codecs", "encode"): _encode,
    Name("torch", "device"): _device,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("numpy", "dtype"): _dtype,
    **{Name(core, "scalar"): _scalar for core in _NUMPY_CORES},
    **{Name(core, "_reconstruct"): _array for core in _NUMPY_CORES},
    **{Name(python, "set"): _set for python in ("builtins", "__builtin__")},
    **{Name(python, "bytes"): _nothing(bytes, "bytes") for python in ("builtins", "__builtin__")},
    **{Name(python, "getattr"): _getattr for python in ("builtins", "__builtin__")},
    **{Name(f"{package}.model", "Operation"): _operation for package in _PACKAGES},
}

#: Classes whose objects become `Foreign`.
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

#: Dictionaries of another class, read as plain ones.
MAPPINGS: frozenset[Name] = frozenset(
    Name(module, "AttributeDict")
    for module in (
        "lightning.fabric.utilities.data",
        "lightning_fabric.utilities.data",
        "lightning.pytorch.utilities.parsing",
        "pytorch_lightning.utilities.parsing",
    )
)

#: Names that are only mentioned.
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

KNOWN = frozenset(CALLS) | CLASSES | MAPPINGS | MENTIONED
