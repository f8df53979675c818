"""What is learnt: the task, measured values of its genes, and weights of spots."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from pandas.api.types import is_numeric_dtype

from stpredict import _keys, _runtime, _validate
from stpredict._sdata._layer_steps import check_ranked, units_of
from stpredict._sdata._provenance import check_measured
from stpredict.models._records import SampleWeight
from stpredict.nn import losses
from stpredict.targets._counts import COUNTS_UNITS, TARGET_SUM
from stpredict.targets._high import HIGH_UNITS, High, check_quantile, is_high
from stpredict.targets._matrix import as_matrix, dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import LayerStep
    from stpredict.models import Model

#: Default number of factors. On sections left out of the training sections of HER2ST C2-C5, 5, 8
#: and 12 predict about equally well, 3 and 20 worse.
N_FACTORS = 8

#: Targets that are computed from the model's genes alone.
_OF_GENES = ("genes", "high")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Arguments that the ``fit_*`` functions share; their docstrings describe them."""

    embedding: str | None = None  # None for models on pixels
    context: str = "spot"
    standardize: Literal["training", "section"] = "training"
    genes: Sequence[str] | None = None  # None: those selected
    layer: str | None = _keys.LOG1P  # None: X
    groups: str | None = None  # None: patients, else sections
    targets: Literal["genes", "svd", "nmf", "autoencoder", "high"] = "genes"
    n_factors: int | None = None
    quantile: float | None = None  # above which a gene is high; None for other targets
    scaling: Literal["standard", "robust", "none"] | None = None
    seed: int = 0  # of the split, the targets and the training
    sample_weight: str | None = None
    loss: str | nn.Module | None = None  # None: "bce" for targets="high", else "mse"
    device: str = "cpu"
    per_10k: bool = False  # learn counts per 10,000, as models of counts predict

    def __post_init__(self) -> None:
        _validate.seed(self.seed)
        _runtime.resolve_device(self.device)  # raises if there is no such device
        if self.n_factors is not None:
            _validate.whole_number("n_factors", self.n_factors)
        if self.quantile is not None:
            check_quantile(self.quantile)


@dataclass(frozen=True)
class Values:
    """Measured values of the genes of a model."""

    genes: list[str]  # of the model
    fit_genes: Any  # (n_obs, n_fit_genes), dense or CSR: the genes that targets are fitted on
    columns: NDArray[np.intp]  # columns of the model's genes in fit_genes
    layer_steps: tuple[LayerStep, ...]  # that made the layer, in order
    units: str  # of the predictions
    library: NDArray[np.float64] | None = None  # (n_obs,) total counts, for losses on counts
    # (n_obs,) weights that training spots are drawn by, and where they came from
    weights: tuple[NDArray[np.float64], SampleWeight] | None = None
    fit_names: tuple[str, ...] = ()  # names of fit_genes
    loss: losses.Loss | None = None  # of a network that is trained on the values
    section: NDArray[np.int64] | None = None  # (n_obs,) number of the section of each row
    # (n_genes,) above which a gene is high, where that is what is predicted
    threshold: NDArray[np.float32] | None = None

    def dense(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float32]:
        """Values of the model's genes in the units of predictions, (n_rows, n_genes)."""
        values = dense(self.fit_genes[rows][:, self.columns])
        if self.threshold is not None:
            return is_high(values, self.threshold)
        if self.library is None:
            return values
        return (values / self.library[rows, None] * TARGET_SUM).astype(np.float32)


def read_values(spots: SpotTable, task: Task) -> Values:
    """Read the genes to learn (for factors, all genes of the layer) and the weights of spots."""
    check_measured(spots.table, spots.name)
    weights = _weights(spots, task.sample_weight)
    genes = _genes(spots, task.genes)
    steps = spots.steps.layer(task.layer)
    check_ranked(task.layer, steps, genes)
    loss = _make_loss(task, len(genes))
    layer = as_matrix(spots.layer(task.layer))
    if loss.needs_counts:
        label = "X" if task.layer is None else f"layers[{task.layer!r}]"
        stored = layer.data if sp.issparse(layer) else layer
        losses.check_counts(loss, np.asarray(stored), where=label)
    places = spots.table.var_names.get_indexer(genes)
    shares = loss.needs_counts or task.per_10k
    values = Values(
        genes=genes,
        fit_genes=layer[:, places] if task.targets in _OF_GENES else layer,
        columns=np.arange(len(genes)) if task.targets in _OF_GENES else places,
        layer_steps=steps,
        units=_units(spots, task, shares=shares),
        library=library_size(layer) if shares else None,
        weights=weights,
        fit_names=tuple(spots.table.var_names),
        loss=loss,
        section=_section_numbers(spots),
    )
    # a baseline of models of counts learns the units in which they predict
    return replace(values, fit_genes=values.dense(), library=None) if task.per_10k else values


def genes_of_model(spots: SpotTable, model: Model) -> Values:
    """Measured values of the genes that a model predicts."""
    return _values_of(spots, model, model.genes, np.arange(len(model.genes)))


def target_genes_of_model(spots: SpotTable, model: Model) -> Values:
    """Measured values of the genes that a model's targets are fitted on: for factors, all."""
    if model.targets.outputs is None:
        return _values_of(spots, model, model.genes, model.targets.columns)
    if model.training.target_genes is None:
        raise ValueError("the model does not record the genes of its factors: fit it again")
    return _values_of(spots, model, model.training.target_genes, model.targets.columns)


def library_size(counts: Any) -> NDArray[np.float64]:
    """Total counts of each spot, (n,)."""
    return np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()


def _units(spots: SpotTable, task: Task, *, shares: bool) -> str:
    """Units of the predictions, in words."""
    units = COUNTS_UNITS if shares else units_of(spots.table, task.layer)
    return f"{HIGH_UNITS}{units}" if task.targets == "high" else units


def _make_loss(task: Task, n_genes: int) -> losses.Loss:
    """Make the loss, which must fit the targets."""
    binary = task.targets == "high"
    n_targets = n_genes if task.targets in _OF_GENES else task.n_factors or N_FACTORS
    natural = "bce" if binary else "mse"
    loss = losses.make(natural if task.loss is None else task.loss, n_targets=n_targets)
    if isinstance(task.loss, str) and loss.needs_binary != binary:
        raise ValueError(
            f"loss={task.loss!r} does not suit targets={task.targets!r}: use {natural!r}, the "
            "default"
        )
    if binary and (task.scaling is not None or task.n_factors is not None):
        raise ValueError('targets="high" has no scaling and no factors: leave out both arguments')
    if task.quantile is not None and not binary:
        raise ValueError(f'quantile={task.quantile!r} is only for targets="high"')
    if loss.needs_counts and (task.targets != "genes" or task.scaling is not None):
        raise ValueError(
            f"loss={loss.name!r} needs counts, which are neither scaled nor replaced by factors: "
            "leave out targets= and scaling="
        )
    return loss


def _weights(
    spots: SpotTable, column: str | None
) -> tuple[NDArray[np.float64], SampleWeight] | None:
    """Read the weights of spots, (n_obs,), and where they came from."""
    if column is None:
        return None
    obs = spots.table.obs
    if column not in obs:
        columns = _validate.listing(obs.columns)
        raise KeyError(
            f"obs has no column sample_weight={column!r}; columns: {columns}: run stp.pp.balance"
        )
    if not is_numeric_dtype(obs[column].dtype):
        raise ValueError(
            f"obs[{column!r}] holds {obs[column].dtype}, but weights must be numbers: run "
            f"stp.pp.balance(sdata, by={column!r})"
        )
    weights = obs[column].to_numpy(dtype=np.float64, na_value=np.nan)
    _validate.counts(weights, what=f"weights in obs[{column!r}]")
    step = spots.steps.balance if column == _keys.SAMPLING_WEIGHT else None
    return weights, SampleWeight(column, None if step is None else step.by or ())


def _genes(spots: SpotTable, genes: Sequence[str] | None) -> list[str]:
    if genes is not None:
        names = _validate.name_list("genes", genes)
        _validate.present(names, spots.table.var_names)
        return names
    selected = spots.selected_genes
    if not selected:
        raise ValueError("no genes are selected: run stp.pp.select_genes, or give genes=")
    return selected


def _values_of(
    spots: SpotTable, model: Model, names: Sequence[str], columns: NDArray[np.intp]
) -> Values:
    check_measured(spots.table, spots.name)
    _validate.present(names, spots.table.var_names)
    values = as_matrix(spots.layer(model.recipe.layer))
    library = None
    if model.units == COUNTS_UNITS:  # also of baselines and stacks, whose targets are genes
        library = library_size(values)
        n_empty = int((library <= 0).sum())
        if n_empty:
            raise ValueError(f"{n_empty} spots have no counts: drop them with stp.pp.filter_spots")
    selected = values[:, spots.table.var_names.get_indexer(list(names))]
    return Values(
        list(model.genes),
        selected,
        columns,
        model.recipe.layer_steps,
        model.units,
        library,
        section=_section_numbers(spots),
        threshold=model.targets.threshold if isinstance(model.targets, High) else None,
    )


def _section_numbers(spots: SpotTable) -> NDArray[np.int64]:
    """Number of the section of each row, (n_obs,)."""
    return np.unique(spots.section_of_row, return_inverse=True)[1].astype(np.int64)
