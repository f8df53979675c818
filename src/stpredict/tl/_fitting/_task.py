"""What every fit_* takes, and what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from pandas.api.types import is_numeric_dtype

from stpredict import _keys, _validate, targets
from stpredict._log import tell
from stpredict._sdata import _layers, _provenance, _sections
from stpredict.nn import losses
from stpredict.targets._counts import TARGET_SUM, Counts
from stpredict.targets._matrix import as_matrix, dense
from stpredict.training import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import nn

    from stpredict.targets import Targets

#: Factors by default: on sections left out of the training sections of HER2ST C2-C5, 5, 8 and 12
#: predict about equally well, 3 and 20 worse.
_N_FACTORS = 8

Kind = Literal["genes", "svd", "nmf", "autoencoder"]
KINDS: tuple[Kind, ...] = ("genes", "svd", "nmf", "autoencoder")
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
    library
        (n_obs,) total counts, for losses on counts.
    """

    genes: list[str]
    fit_genes: Any
    columns: NDArray[np.intp]
    library: NDArray[np.float64] | None = None

    def dense(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Values of the model's genes in the units of predictions, (n_rows, n_genes)."""
        picked = self.fit_genes[rows][:, self.columns]
        found = dense(picked)
        if self.library is None:
            return found
        return (found / self.library[rows, None] * TARGET_SUM).astype(np.float32)


def read_values(table: AnnData, task: Task) -> Values:
    """Read what is to be predicted: its genes, and for factors all genes."""
    chosen = _genes(table, task.genes)
    made = read_loss(task, len(chosen))
    _layers.check_ranked(table, task.layer, chosen)
    values = as_matrix(_sections.layer_of(table, task.layer))
    places = table.var_names.get_indexer(chosen)
    library = None
    if made.needs_counts:
        where = "X" if task.layer is None else f"layers[{task.layer!r}]"
        stored = values.data if sp.issparse(values) else values
        losses.check_counts(made, np.asarray(stored), where=where)
        library = library_of(values)
    if task.targets == "genes":
        return Values(chosen, values[:, places], np.arange(len(chosen)), library)
    return Values(chosen, values, places, library)


def library_of(counts: Any) -> NDArray[np.float64]:
    """Total counts of each spot, (n,)."""
    return np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()


def read_loss(task: Task, n_genes: int) -> losses.Loss:
    """Make the loss, which must fit the targets."""
    _validate.one_of("targets", task.targets, KINDS)
    n_targets = n_genes if task.targets == "genes" else task.n_factors or _N_FACTORS
    made = losses.make(task.loss, n_targets=n_targets)
    if made.needs_counts and (task.targets != "genes" or task.scaling is not None):
        raise ValueError(
            f"loss={made.name!r} is a likelihood of counts, which are neither scaled nor replaced "
            f"by factors: leave targets={task.targets!r} and scaling={task.scaling!r} out"
        )
    return made


def fit_targets(values: Values, task: Task, training: NDArray[np.intp]) -> Targets:
    """Fit what the network is to predict on training rows."""
    options: dict[str, Any] = {"columns": values.columns, "seed": task.seed}
    kind: Kind | Literal["counts"] = task.targets
    if values.library is not None:
        kind, options["library"] = "counts", values.library[training]
    elif kind == "genes":
        # what compares the targets of a spot needs them as they are, not each in units of its own
        common = read_loss(task, len(values.genes)).needs_several_targets
        scaling = task.scaling or ("none" if common else "standard")
        options |= {"n_factors": task.n_factors, "scaling": scaling}
    else:
        options |= {
            "n_factors": task.n_factors or _N_FACTORS,
            "scaling": task.scaling or ("standard" if kind == "autoencoder" else "none"),
        }
    fitted = targets.fit(kind, values.fit_genes[training], **options)
    _tell_constant(values.genes, fitted)
    return fitted


def measured_of(values: Values, fitted: Targets) -> Measured:
    """Make targets of all rows."""
    scaled = fitted.transform(values.fit_genes)
    if values.library is None or not isinstance(fitted, Counts):
        return Measured(scaled)
    return Measured(scaled, np.log(values.library).astype(np.float32), fitted.log_share)


def _genes(table: AnnData, genes: Sequence[str] | None) -> list[str]:
    if genes is None:
        if _keys.SELECTED not in table.var or not table.var[_keys.SELECTED].any():
            raise ValueError(
                "no genes are selected: run stp.pp.select_genes(sdata, n_top_genes=…) first, or give "
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
