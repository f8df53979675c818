"""The contract of all targets: what a network predicts, and how it becomes genes again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

from stpredict import _validate
from stpredict.targets._standard import Standard

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


@dataclass(frozen=True, eq=False)
class FactorTargets(Targets):
    """Targets whose outputs are scaled scores of factors.

    Attributes
    ----------
    genes
        Scaling of the fit genes; ``genes.scale`` is 0 where a gene takes no part.
    scores
        Centre and scale of the factors in training; scale 0 where a factor has no variance.
    scaling
        Name of the scaling of the genes.
    """

    genes: Standard
    scores: Standard
    scaling: str

    @property
    def n_outputs(self) -> int:
        """Number of factors."""
        return len(self.scores.mean)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the factors."""
        return tuple(f"{self.kind}_{i}" for i in range(1, self.n_outputs + 1))

    def factors(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scores of the factors in their own units, (n, n_outputs) float32."""
        return self.scores.inverse(self._checked_outputs(outputs))

    def _scores_of(self, outputs: torch.Tensor) -> torch.Tensor:
        """Scores of the factors in their own units, as `factors` gives them, in torch."""
        scale, mean = (outputs.new_tensor(part) for part in (self.scores.scale, self.scores.mean))
        return outputs * scale + mean

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {"scaling": self.scaling, "n_factors": self.n_outputs}, {
            "genes.center": self.genes.mean,
            "genes.scale": self.genes.scale,
            "scores.mean": self.scores.mean,
            "scores.scale": self.scores.scale,
        }

    @classmethod
    def _read_factors(cls, saved: Saved, shared: dict[str, Any]) -> dict[str, Any]:
        """Read the fields of all kinds of factors."""
        n_factors, n_genes = saved.whole("n_factors"), shared["n_fit_genes"]
        return shared | {
            "scaling": saved.scaling(),
            "genes": saved.standard("genes.center", "genes.scale", n_genes),
            "scores": saved.standard("scores.mean", "scores.scale", n_factors),
        }


def check_n_factors(n_factors: int, n_rows: int, constant: NDArray[np.bool_]) -> None:
    """Require no more factors than training rows, and than genes that vary in them."""
    n_varying = int((~constant).sum())
    if n_factors > min(n_rows, n_varying):
        raise ValueError(
            f"n_factors={n_factors} is too many: it may be no more than the training rows "
            f"({n_rows}) and the genes that vary in them ({n_varying})"
        )


def standard_scores(scores: NDArray[np.float64]) -> Standard:
    """Standard scores of factors in training, of (n_rows, n_factors)."""
    standard = Standard.fit(scores)
    # a smaller spread is what rounding leaves of none
    has_spread = standard.scale > 1e-6 * standard.scale.max()
    return Standard(standard.mean, np.where(has_spread, standard.scale, np.float32(0)))


def weighed_scores(scores: NDArray[np.float64], components: NDArray[np.float32]) -> Standard:
    """Scale scores by what they move in the genes, of (n_rows, n_factors).

    An error of a factor then counts as the errors that it makes in the genes: exactly so where
    components (n_factors, n_fit_genes) are orthogonal. Were all factors of one size, a network
    would spend itself on the small ones, which are mostly noise. On average over the factors,
    the variance is 1.
    """
    standard = standard_scores(scores)
    reach = np.linalg.norm(components.astype(np.float64), axis=1)
    common = np.sqrt(np.mean((standard.scale * reach) ** 2))
    takes_part = ~standard.constant & (reach > 0)
    scale = np.where(takes_part, common / np.where(takes_part, reach, 1), 0)
    return Standard(standard.mean, scale.astype(np.float32))


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
