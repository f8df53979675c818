"""What every fit_* takes, and what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from pandas.api.types import is_numeric_dtype

from stpredict import _keys, _layers, _provenance, _sections, _validate, targets
from stpredict._log import tell
from stpredict.training import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import nn

    from stpredict.targets import Targets

#: Factors by default: on four sections of a tumour, 5 to 12 predict about equally well.
_N_FACTORS = 8

Kind = Literal["genes", "svd", "nmf", "autoencoder"]
Scaling = Literal["standard", "robust", "none"]


@dataclass(frozen=True)
class Task:
    """What to learn from what; the doors ``fit_*`` say what each of them is."""

    embedding: str
    context: str
    genes: Sequence[str] | None
    layer: str | None
    groups: str | None
    sample_weight: str | None
    targets: Kind
    n_factors: int | None
    scaling: Scaling | None
    seed: int
    device: str
    loss: str | nn.Module = "mse"


@dataclass(frozen=True)
class Values:
    """What was measured.

    Attributes
    ----------
    genes
        Names of the model's genes.
    fit_genes
        (n_obs, n_fit_genes), dense or CSR: the genes that targets are fitted on.
    columns
        Places of the model's genes among them.
    """

    genes: list[str]
    fit_genes: Any
    columns: NDArray[np.intp]

    def dense(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Values of the model's genes, (n_rows, n_genes)."""
        picked = self.fit_genes[rows][:, self.columns]
        return np.asarray(picked.toarray() if sp.issparse(picked) else picked, dtype=np.float32)


def read_values(table: AnnData, task: Task) -> Values:
    """Read what is to be predicted: its genes, and for factors all genes."""
    chosen = _genes(table, task.genes)
    _layers.check_ranked(table, task.layer, chosen)
    values = _sections.layer_of(table, task.layer)
    values = sp.csr_matrix(values) if sp.issparse(values) else np.asarray(values)
    places = table.var_names.get_indexer(chosen)
    if task.targets == "genes":
        return Values(chosen, values[:, places], np.arange(len(chosen)))
    return Values(chosen, values, places)


def fit_targets(values: Values, task: Task, training: NDArray[np.intp]) -> Targets:
    """Fit what the network is to predict on training rows."""
    _validate.one_of("targets", task.targets, targets.KINDS)
    is_factors = task.targets != "genes"
    n_factors = _N_FACTORS if is_factors and task.n_factors is None else task.n_factors
    fitted = targets.fit(
        task.targets,
        values.fit_genes[training],
        columns=values.columns,
        n_factors=n_factors,
        scaling=task.scaling or ("none" if is_factors else "standard"),
        seed=task.seed,
    )
    _tell_constant(values.genes, fitted)
    return fitted


def measured_of(values: Values, fitted: Targets) -> Measured:
    """Make targets of all rows."""
    return Measured(fitted.transform(values.fit_genes))


def _genes(table: AnnData, genes: Sequence[str] | None) -> list[str]:
    if genes is None:
        if _keys.SELECTED not in table.var or not table.var[_keys.SELECTED].any():
            raise ValueError(
                "no genes are selected: run stp.pp.select_genes(sdata, n_top=…) first, or give "
                "genes="
            )
        return table.var_names[table.var[_keys.SELECTED]].tolist()
    chosen = list(genes)
    if not chosen:
        raise ValueError("genes= is empty")
    _validate.unique_names(chosen, what="genes")
    _validate.present(chosen, table.var_names)
    return chosen


def read_weights(
    table: AnnData, column: str | None, training: NDArray[np.intp]
) -> NDArray[np.float64] | None:
    """Read the weights that spots are drawn by."""
    if column is None:
        return None
    if column not in table.obs:
        raise KeyError(
            f"sample_weight={column!r} is no column of obs: {_validate.listing(table.obs.columns)}"
            f"; stp.pp.balance writes obs[{_keys.SAMPLING_WEIGHT!r}]"
        )
    if not is_numeric_dtype(table.obs[column].dtype):
        raise ValueError(
            f"obs[{column!r}] holds {table.obs[column].dtype}, weights must be numbers; "
            f"stp.pp.balance(sdata, by={column!r}) makes weights by which its groups weigh alike"
        )
    weights = table.obs[column].to_numpy(dtype=np.float64, na_value=np.nan)
    _validate.counts(weights, what=f"weights in obs[{column!r}]")
    if not weights[training].any():
        raise ValueError(f"the weights in obs[{column!r}] are 0 for every training spot")
    return weights


def weighing(table: AnnData, column: str | None) -> dict[str, Any] | None:
    """What a model remembers of its weights."""
    if column is None:
        return None
    balanced = _provenance.recorded(table, "balance") if column == _keys.SAMPLING_WEIGHT else {}
    return {"column": column, **({"balance": balanced} if balanced else {})}


def _tell_constant(genes: list[str], fitted: Targets) -> None:
    constant = [
        gene for gene, is_constant in zip(genes, fitted.constant, strict=True) if is_constant
    ]
    if constant:
        tell(
            f"{len(constant)} of {len(genes)} genes are constant in training and predicted as that "
            f"constant: {_validate.listing(constant)}"
        )
