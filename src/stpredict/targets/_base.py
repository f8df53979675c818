"""The contract of all targets: what a network predicts, and how it becomes genes again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

from stpredict import _validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from stpredict.targets._saved import Saved


@dataclass(frozen=True, eq=False)
class Targets(ABC):
    """What a model learns to predict; made by :func:`stpredict.targets.fit`.

    Targets are fitted on training rows of the *fit genes*, from which factors are made; the
    genes of the model are some of them, or all.

    Attributes
    ----------
    columns
        (n_genes,) int64, the model's genes among the fit genes.
    n_fit_genes
        Genes that the targets were fitted on.
    mean
        (n_genes,) float32, means of the training rows in the units of
        :meth:`~stpredict.targets.Targets.inverse`.
    constant
        (n_genes,) bool, genes that have one value in all training rows. They are predicted as
        that value, whatever a network says.
    """

    columns: NDArray[np.int64]
    n_fit_genes: int
    mean: NDArray[np.float32]
    constant: NDArray[np.bool_]

    #: Name of the kind, as in ``fit``.
    kind: ClassVar[str]

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of outputs of the network."""

    @property
    def outputs(self) -> tuple[str, ...] | None:
        """Names of the outputs where they are not the genes, such as ``"svd_1"``."""
        return None

    @abstractmethod
    def transform(self, values: Any) -> NDArray[np.float32]:
        """Make targets of measured values.

        Parameters
        ----------
        values
            (n, n_fit_genes), dense or sparse, finite.

        Returns
        -------
        (n, n_outputs) float32, what the network is trained on.

        Raises
        ------
        ValueError
            If the number of genes is another, or values are NaN or infinite.
        """

    @abstractmethod
    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Make genes of outputs: (n, n_outputs) to (n, n_genes) float32, in their units."""

    def gene(self, outputs: torch.Tensor, place: int) -> torch.Tensor:
        """Make one gene of outputs as `inverse` does, in torch, so that it has a gradient.

        Parameters
        ----------
        outputs
            (n, n_outputs) float32, on any device.
        place
            Which of the model's genes, from 0.

        Returns
        -------
        (n,) float32.
        """
        if self.constant[place]:
            return outputs.new_full((len(outputs),), float(self.mean[place]))
        return self._gene(outputs, place)

    @abstractmethod
    def _gene(self, outputs: torch.Tensor, place: int) -> torch.Tensor:
        """Make a gene that varies in training of outputs, (n,)."""

    def factors(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring outputs to the units of the factors, (n, n_outputs) float32.

        Raises
        ------
        ValueError
            If the outputs are genes.
        """
        raise ValueError(
            f"targets={self.kind!r} have no factors, their outputs are genes; fit a model with "
            'targets="svd", "nmf" or "autoencoder" to predict factors'
        )

    def only(self, places: Sequence[int]) -> Targets:
        """Keep some of the model's genes, by their places; factors stay what they are."""
        kept = np.asarray(places, dtype=np.int64)
        return replace(
            self,
            columns=self.columns[kept],
            mean=self.mean[kept],
            constant=self.constant[kept],
        )

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give what :func:`stpredict.targets.from_state` makes the same targets of.

        Returns
        -------
        A configuration for JSON, and arrays for safetensors.
        """
        config, own = self._state()
        tensors = {"columns": self.columns, "mean": self.mean, "constant": self.constant, **own}
        return (
            {"kind": self.kind, "n_fit_genes": self.n_fit_genes, **config},
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        )

    @abstractmethod
    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give what a kind has beside the fields of all."""

    @classmethod
    @abstractmethod
    def _read(cls, saved: Saved, shared: dict[str, Any]) -> Targets:
        """Make targets of what was saved, and of the fields of all, which are checked already."""

    def _checked(self, values: Any) -> Any:
        """Give values as an array or as CSR, or raise."""
        values = matrix(values)
        if values.shape[1] != self.n_fit_genes:
            raise ValueError(
                f"values have {values.shape[1]} genes, the targets were fitted on "
                f"{self.n_fit_genes}: give the same genes in the same order"
            )
        _validate.finite(values, what="the matrix of values")
        return values

    def _checked_outputs(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        outputs = np.asarray(outputs, dtype=np.float32)
        if outputs.ndim != 2 or outputs.shape[1] != self.n_outputs:
            raise ValueError(
                f"outputs have the shape {outputs.shape}, but (n, {self.n_outputs}) is needed"
            )
        return outputs

    def _model_genes(self, values: Any) -> NDArray[np.float32]:
        """Dense values of the model's genes, (n, n_genes)."""
        return dense(values[:, self.columns])

    def _with_constants(self, genes: NDArray[Any]) -> NDArray[np.float32]:
        """Set the genes that were constant to their constants."""
        return np.where(self.constant, self.mean, np.asarray(genes, dtype=np.float32))


def matrix(values: Any) -> Any:
    """Give values as a two-dimensional array or as CSR, without a copy where they are one."""
    if sp.issparse(values):
        return sp.csr_matrix(values)
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"values must be a matrix of rows by genes, not of shape {values.shape}")
    return values


def dense(values: Any) -> NDArray[np.float32]:
    """Dense float32 values, rows together."""
    values = values.toarray() if sp.issparse(values) else values
    return np.ascontiguousarray(values, dtype=np.float32)
