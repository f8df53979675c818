"""Saved arrays and networks: compared with what is expected before any memory is allocated."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open

from stpredict import _validate
from stpredict.models._records import CNNNetwork
from stpredict.nn import ForestSets
from stpredict.nn._backbones import SMALL, count_weights
from stpredict.targets import Standard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from stpredict.models._config import Config
    from stpredict.models._methods import Method
    from stpredict.models._records import Record

#: Types that saved arrays have, by their names in safetensors.
_TYPES = {"F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32", "BOOL": "bool"}


@dataclass(frozen=True)
class ArrayType:
    """Type and shape of an array in a file."""

    dtype: str  # name in numpy and torch
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SavedArrays:
    """Arrays of an open safetensors file, which are read when they are needed."""

    file: Any
    types: dict[str, ArrayType]

    def types_of(self, part: str) -> dict[str, ArrayType]:
        """Types of the arrays of one part of a model, by their names in it."""
        return {
            name.removeprefix(f"{part}."): array
            for name, array in self.types.items()
            if name.startswith(f"{part}.")
        }

    def read(self, part: str) -> dict[str, NDArray[Any]]:
        """Arrays of one part of a model, by their names in it."""
        return {name: self.file.get_tensor(f"{part}.{name}") for name in self.types_of(part)}

    def scaling(self, part: str, *, needed: bool) -> Standard | None:
        """Scaling of embeddings; None if it is neither saved nor needed."""
        types = self.types_of(part)
        if not types and not needed:
            return None
        for name in ("mean", "scale"):
            if name not in types:
                raise ValueError(f"the weights lack the array {part}.{name}")
            if types[name].dtype != "float32":
                raise ValueError(f"{part}.{name} is {types[name].dtype}, expected float32")
        arrays = self.read(part)
        return Standard(arrays["mean"], arrays["scale"])


@contextmanager
def open_arrays(path: Path) -> Iterator[SavedArrays]:
    """Open a file of arrays and check their types, without reading them."""
    with safe_open(path, framework="numpy") as file:
        types = {}
        for name in file.keys():  # noqa: SIM118
            array = file.get_slice(name)
            dtype = array.get_dtype()
            if dtype not in _TYPES:
                choices = ", ".join(_TYPES)
                raise ValueError(f"array {name} has type {dtype}, expected one of {choices}")
            types[name] = ArrayType(_TYPES[dtype], tuple(array.get_shape()))
        yield SavedArrays(file, types)


def read_network(
    method: Method, config: Config, saved: SavedArrays, *, n_features: int, n_outputs: int
) -> nn.Module:
    """Build the network of a configuration and read its weights, which must fit and be finite."""
    types, options = saved.types_of("network"), config.hyperparameters.network
    _check_backbone(options, types)
    # building draws initial weights
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            expected = method.build(n_features, n_outputs, context=config.context, options=options)
        _compare(expected, types)
        network = method.build(n_features, n_outputs, context=config.context, options=options)
    arrays = saved.read("network")
    for name, array in arrays.items():
        _check_values(name, array)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return network.eval()


def _check_backbone(options: Record | None, types: Mapping[str, ArrayType]) -> None:
    """Require at least as many saved weights as a backbone of timm has."""
    if not isinstance(options, CNNNetwork) or options.backbone == SMALL:
        return
    # the properties of a large backbone, which are needed to build the network, take seconds
    n_weights = count_weights(options.backbone)
    n_saved = sum(math.prod(array.shape) for array in types.values())
    if n_weights > n_saved:
        problem = f"has {n_weights:,} weights, but {n_saved:,} are saved"
        raise ValueError(f"backbone {options.backbone!r} {problem}")


def _compare(network: nn.Module, types: Mapping[str, ArrayType]) -> None:
    """Require arrays with the names, types and shapes of the network's."""
    state = network.state_dict()
    expected = {
        name: ArrayType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in state.items()
    }
    for problem, names in (
        ("lack", [name for name in expected if name not in types]),
        ("have unexpected", [name for name in types if name not in expected]),
    ):
        if names:
            raise ValueError(f"the weights of the network {problem} {_validate.listing(names)}")
    for name, array in types.items():
        if array.dtype != expected[name].dtype:
            raise ValueError(f"network.{name} is {array.dtype}, expected {expected[name].dtype}")
        # scalars are saved as vectors; forests have as many nodes as are saved, and check them
        fits = (array.shape or (1,)) == (expected[name].shape or (1,))
        if not fits and not isinstance(network, ForestSets):
            shapes = f"{array.shape}, the configuration gives {expected[name].shape}"
            raise ValueError(f"network.{name} has shape {shapes}")


def _check_values(name: str, array: NDArray[Any]) -> None:
    _validate.finite(array, what=f"network.{name}")
    # variances of batch norm, and standard deviations of pixels
    least = {"running_var": 0.0, "std": np.finfo(np.float32).tiny}.get(name.split(".")[-1])
    if least is not None and (array < least).any():
        raise ValueError(f"network.{name} has values below {least:.3g}")
