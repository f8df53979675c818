"""The base of all targets: what a network predicts, and its conversion to genes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from stpredict import _validate
from stpredict.nn._check import check_shape
from stpredict.targets._matrix import Matrix, as_matrix, dense
from stpredict.targets._saved import SavedTargets

State = tuple[dict[str, str | int | float], dict[str, "NDArray[Any]"]]


@dataclass(frozen=True, eq=False)
class Targets(ABC):
    """What a model learns to predict, fitted by :func:`stpredict.targets.fit`.

    Targets are fitted on training rows of the *fit genes*, from which factors are computed. The
    model's genes are all or some of them.

    Attributes
    ----------
    columns
        (n_genes,) int64, index of the model's genes in the fit genes.
    n_fit_genes
        Number of genes that the targets were fitted on.
    mean
        (n_genes,) float32, means over the training rows in the units of
        :meth:`~stpredict.targets.Targets.inverse`.
    constant
        (n_genes,) bool, genes with a single value in all training rows. They are always predicted
        as that value.
    """

    columns: NDArray[np.int64]
    n_fit_genes: int
    mean: NDArray[np.float32]
    constant: NDArray[np.bool_]

    #: Name of the kind, as in ``fit``.
    kind: ClassVar[str]

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self.columns)

    @property
    def outputs(self) -> tuple[str, ...] | None:
        """Names of the outputs, such as ``"svd_1"``; None if they are the genes."""
        return None

    @abstractmethod
    def transform(self, values: Matrix) -> NDArray[np.float32]:
        """Convert measured values, (n, n_fit_genes), to targets, (n, n_outputs) float32.

        Values are dense or sparse. A ValueError is raised if the number of genes differs, or
        values are NaN or infinite.
        """

    @abstractmethod
    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Convert outputs, (n, n_outputs), to genes in their units, (n, n_genes) float32."""

    def gene(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        """Convert outputs to one gene as `inverse` does, but differentiably in torch.

        From (n, n_outputs) float32, on any device, to (n,); ``index`` is that of the model's genes.
        """
        if self.constant[index]:
            return outputs.new_full((len(outputs),), float(self.mean[index]))
        return self._gene(outputs, index)

    @abstractmethod
    def _gene(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        """Convert outputs to one gene that is not constant, (n,)."""

    def factors(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Convert outputs to the units of the factors, (n, n_outputs), unless they are genes."""
        remedy = 'use targets="svd", "nmf" or "autoencoder"'
        raise ValueError(f"targets={self.kind!r} have no factors: {remedy}")

    def subset(self, genes: Sequence[int]) -> Self:
        """Targets for some of the model's genes, by index; factors do not change."""
        index = np.asarray(genes, dtype=np.int64)
        columns, mean, constant = self.columns[index], self.mean[index], self.constant[index]
        return replace(self, columns=columns, mean=mean, constant=constant)

    def state(self) -> State:
        """Configuration for JSON and arrays for safetensors, as `from_state` takes them."""
        config, arrays = self._state()
        arrays = {"columns": self.columns, "mean": self.mean, "constant": self.constant, **arrays}
        return (
            {"kind": self.kind, "n_fit_genes": self.n_fit_genes, **config},
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        )

    @abstractmethod
    def _state(self) -> State:
        """State of the fields that not all kinds have."""

    @classmethod
    @abstractmethod
    def _read(cls, saved: SavedTargets) -> Self:
        """Read saved targets."""

    def _checked(self, values: Matrix) -> Matrix:
        """Values as an array or CSR, or an error."""
        values = as_matrix(values)
        if values.shape[1] != self.n_fit_genes:
            fitted = f"the targets were fitted on {self.n_fit_genes}: pass the same genes"
            raise ValueError(f"values have {values.shape[1]} genes, {fitted}")
        _validate.finite(values, what="the matrix of values")
        return values

    def _checked_outputs(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        outputs = np.asarray(outputs, dtype=np.float32)
        check_shape("outputs", outputs, (None, self.n_outputs))
        return outputs

    def _model_genes(self, values: Matrix) -> NDArray[np.float32]:
        """Dense values of the model's genes, (n, n_genes)."""
        return dense(values[:, self.columns])

    def _with_constants(self, genes: NDArray[Any]) -> NDArray[np.float32]:
        """Replace predictions of constant genes by their constants."""
        # a network may predict other values for them, but never learns from them
        return np.where(self.constant, self.mean, np.asarray(genes, dtype=np.float32))
