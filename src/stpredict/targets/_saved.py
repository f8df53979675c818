"""What was saved of targets, read with checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _validate
from stpredict.targets._scaling import SCALINGS
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class Saved:
    """A configuration and arrays, of which every part is checked when it is read.

    Every check raises a ValueError.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    def value(self, name: str) -> Any:
        """Part of the configuration."""
        if name not in self.config:
            raise ValueError(f"the saved targets lack {name}")
        return self.config[name]

    def whole(self, name: str) -> int:
        """Whole number of at least 1."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{name} of the saved targets must be a whole number of at least 1: {value!r}"
            )
        return value

    def scaling(self) -> str:
        """Name of a scaling."""
        value = self.value("scaling")
        _validate.one_of("scaling", value, SCALINGS)
        return str(value)

    def array(
        self, name: str, shape: tuple[int | None, ...], dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Array of a shape, None standing for any size, all of whose values are finite."""
        if name not in self.tensors:
            raise ValueError(f"the saved targets lack the array {name}")
        array = self.tensors[name]
        if array.dtype != dtype:
            raise ValueError(
                f"{name} of the saved targets is {array.dtype}, but {np.dtype(dtype)} is needed"
            )
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(
                f"{name} of the saved targets has the shape {array.shape}, but ({wanted}) is needed"
            )
        _validate.finite(array, what=f"{name} of the saved targets")
        return array

    def standard(self, mean: str, scale: str, n: int) -> Standard:
        """Scaling of n columns."""
        scales = self.array(scale, (n,))
        if (scales < 0).any():
            raise ValueError(f"{scale} of the saved targets has negative values")
        return Standard(self.array(mean, (n,)), scales)

    def shared(self) -> dict[str, Any]:
        """Fields of all kinds of targets."""
        n_fit_genes = self.whole("n_fit_genes")
        columns = self.array("columns", (None,), np.int64)
        check_columns(columns, n_fit_genes)
        return {
            "columns": columns,
            "n_fit_genes": n_fit_genes,
            "mean": self.array("mean", (len(columns),)),
            "constant": self.array("constant", (len(columns),), np.bool_),
        }


def check_columns(columns: NDArray[Any], n_fit_genes: int) -> None:
    """Require that these are some of the fit genes, each once."""
    if columns.ndim != 1 or not len(columns) or columns.dtype.kind not in "iu":
        raise ValueError(
            "columns must be the places of the model's genes among the fit genes, at least one, "
            f"as whole numbers; they are {columns.dtype} of the shape {columns.shape}"
        )
    low, high = int(columns.min()), int(columns.max())
    if low < 0 or high >= n_fit_genes:
        raise ValueError(
            f"columns go from {low} to {high}, but fit genes from 0 to {n_fit_genes - 1}"
        )
    if len(np.unique(columns)) < len(columns):
        raise ValueError("columns name a gene more than once")
