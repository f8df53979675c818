"""Checked reading of saved targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stpredict import _validate
from stpredict.nn._check import check_shape
from stpredict.targets._standard import Standard


@dataclass(frozen=True)
class SavedTargets:
    """Configuration and arrays of saved targets; each part is checked when it is read."""

    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    def value(self, name: str) -> Any:
        """Part of the configuration."""
        if name not in self.config:
            raise ValueError(f"the saved targets lack {name}")
        return self.config[name]

    def whole_number(self, name: str) -> int:
        """Whole number of at least 1."""
        value = self.value(name)
        _validate.whole_number(f"{name} of the saved targets", value)
        return int(value)

    def one_of(self, name: str, choices: Iterable[str]) -> str:
        """One of some names."""
        value = self.value(name)
        _validate.one_of(f"{name} of the saved targets", value, choices)
        return str(value)

    def array(
        self, name: str, shape: tuple[int | None, ...], dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Finite array of a shape; None matches any size."""
        if name not in self.tensors:
            raise ValueError(f"the saved targets lack the array {name}")
        array = self.tensors[name]
        if array.dtype != dtype:
            raise ValueError(f"{name} is {array.dtype}, but {np.dtype(dtype)} is needed")
        check_shape(f"{name} of the saved targets", array, shape)
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
        n_fit_genes = self.whole_number("n_fit_genes")
        columns = self.array("columns", (None,), np.int64)
        check_columns(columns, n_fit_genes)
        return {
            "columns": columns,
            "n_fit_genes": n_fit_genes,
            "mean": self.array("mean", (len(columns),)),
            "constant": self.array("constant", (len(columns),), np.bool_),
        }


def check_columns(columns: NDArray[Any], n_fit_genes: int) -> None:
    """Require distinct columns of the fit genes."""
    if columns.ndim != 1 or not len(columns) or columns.dtype.kind not in "iu":
        kind = f"{columns.dtype} of shape {columns.shape}"
        raise ValueError(f"columns must be a non-empty vector of whole numbers, not {kind}")
    low, high = int(columns.min()), int(columns.max())
    if low < 0 or high >= n_fit_genes:
        raise ValueError(f"columns go from {low} to {high}, fit genes from 0 to {n_fit_genes - 1}")
    if len(np.unique(columns)) < len(columns):
        raise ValueError("columns contain a gene more than once")
