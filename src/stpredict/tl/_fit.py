"""The shared runner: measured sections and a method in, a fitted model out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from pandas.api.types import is_numeric_dtype
from torch.nn import functional

from stpredict import _keys, _layers, _provenance, _recipe, _sections, _validate
from stpredict._log import tell
from stpredict.models import Model
from stpredict.models._ridge import Ridge
from stpredict.targets import Standard
from stpredict.tl._split import split
from stpredict.training import Inputs, Schedule, fit_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models._methods import Method

#: Packages whose versions a model remembers.
_VERSIONS = ("stpredict", "torch", "lightning", "spatialdata", "anndata", "numpy")


def fit(
    sdata: SpatialData,
    method: Method,
    *,
    embedding: str,
    context: str,
    genes: Sequence[str] | None,
    layer: str,
    groups: str | None,
    sample_weight: str | None,
    network: dict[str, Any],
    schedule: Schedule,
    seed: int,
    device: str,
) -> Model:
    """Check a SpatialData, fit a method to it; the doors ``fit_*`` say what each argument is."""
    _validate.one_of("context", context, method.contexts)
    uses_subtiles, uses_neighbors = method.contexts[context]
    table = _sections.table_of(sdata)
    found = _sections.sections(sdata)
    center, subtiles, padded = _recipe.read_inputs(
        table, embedding, subtiles=uses_subtiles, neighbors=uses_neighbors
    )
    chosen = _genes(table, genes)
    _layers.check_ranked(table, layer, chosen)
    measured = _dense(_sections.layer_of(table, layer), table.var_names.get_indexer(chosen))
    rows = split(table, found, groups=groups, seed=seed)
    weights = _weights(table, sample_weight, rows.training)

    targets = Standard.fit(measured[rows.training])
    _tell_constant(chosen, targets)
    scaled = targets.transform(measured)
    inputs = Inputs(
        center=center,
        scaler=Standard.fit(center[rows.training]),
        subtiles=subtiles,
        subtile_scaler=_subtile_scaler(subtiles, rows.training),
        neighbors=padded,
    )
    fitted = fit_network(
        functools.partial(method.network, center.shape[1], len(chosen), context=context, **network),
        inputs,
        scaled,
        training=rows.training,
        validation=rows.validation,
        loss=functional.mse_loss,
        schedule=schedule,
        seed=seed,
        device=device,
        weights=weights,
    )
    # ridge stops at nothing: it gets all rows, and tunes alpha over their groups
    ridge = Ridge.fit(inputs.scaler.transform(center), scaled, rows.groups)
    return Model(
        method=method.name,
        network=fitted.network,
        genes=tuple(chosen),
        context=context,
        hyperparameters={**network, **vars(schedule), "loss": "mse"},
        recipe=_recipe.recipe_of(table, embedding, layer, neighbors=uses_neighbors),
        training={
            "sections": [section.name for section in found],
            "groups": sorted(set(rows.groups.tolist())),
            "held_out": rows.held_out,
            "n_spots": len(rows.training),
            "n_held_out": len(rows.validation),
            "best_epoch": fitted.best_epoch,
            "sample_weight": _weighing(table, sample_weight),
            "seed": seed,
            "versions": _versions(),
        },
        units=_layers.units_of(table, layer),
        inputs=inputs.scaler,
        targets=targets,
        ridge=ridge,
        history=fitted.history,
        subtiles=inputs.subtile_scaler,
    )


def _subtile_scaler(
    subtiles: NDArray[np.float32] | None, training: NDArray[np.intp]
) -> Standard | None:
    """Scale sub-tiles so that the sum over them varies about as much as a tile."""
    if subtiles is None:
        return None
    _, n_subtiles, n_features = subtiles.shape
    each = Standard.fit(subtiles[training].reshape(-1, n_features))
    return each.times(n_subtiles)


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


def _dense(values: Any, columns: NDArray[np.intp]) -> NDArray[np.float32]:
    picked = values[:, columns]
    return np.asarray(picked.toarray() if sp.issparse(picked) else picked, dtype=np.float32)


def _weights(
    table: AnnData, column: str | None, training: NDArray[np.intp]
) -> NDArray[np.float64] | None:
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


def _weighing(table: AnnData, column: str | None) -> dict[str, Any] | None:
    """What a model remembers of its weights."""
    if column is None:
        return None
    balanced = _provenance.recorded(table, "balance") if column == _keys.SAMPLING_WEIGHT else {}
    return {"column": column, **({"balance": balanced} if balanced else {})}


def _tell_constant(genes: list[str], targets: Standard) -> None:
    constant = [
        gene for gene, is_constant in zip(genes, targets.constant, strict=True) if is_constant
    ]
    if constant:
        tell(
            f"{len(constant)} of {len(genes)} genes are constant in training and predicted as that "
            f"constant: {_validate.listing(constant)}"
        )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    known = {}
    for name in _VERSIONS:
        try:
            known[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return known
