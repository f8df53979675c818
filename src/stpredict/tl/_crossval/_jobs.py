"""All methods in all folds: one after the other, or on the workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stpredict._log import hidden_bars, info, progress_bar
from stpredict._workers import active_client, run_on_worker
from stpredict.results import Failure
from stpredict.tl._crossval._fold_data import fold_data
from stpredict.tl._crossval._outcome import Outcome, run_method

if TYPE_CHECKING:
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._crossval._folds import Fold, Folds
    from stpredict.tl._crossval._store import Store
    from stpredict.tl._fitting._bases import FitFunctions

#: By name of the fold and of the method.
Outcomes = dict[tuple[str, str], Outcome | Failure]


def run_folds(
    spots: SpotTable,
    methods: FitFunctions,
    folds: Folds,
    store: Store,
    *,
    device: str,
    keep_models: bool = False,
    description: str = "cross-validate",
) -> Outcomes:
    """Run every method in every fold, except what the store has."""
    store.add_methods(methods)
    outcomes: Outcomes = {}
    for fold in folds:
        for name in methods:
            stored = store.read(fold.name, name, with_model=keep_models)
            if stored is not None:
                outcomes[fold.name, name] = stored
    if outcomes:
        info(f"cross_validate: {len(outcomes)} of {len(folds) * len(methods)} were finished before")
    missing: dict[str, FitFunctions] = {
        fold.name: {
            name: function
            for name, function in methods.items()
            if (fold.name, name) not in outcomes
        }
        for fold in folds
    }
    client = active_client()
    n_jobs = sum(map(len, missing.values()))
    finished = (
        _in_turn(spots, folds, missing, device, keep_models)
        if client is None
        else _on_workers(client, spots, folds, missing, device, keep_models)
    )
    # one bar over all fits: those of the fits themselves would follow each other by the dozen
    bar = progress_bar(total=n_jobs, description=description, unit="fit", leave=n_jobs > 0)
    with bar, hidden_bars():
        for fold_name, name, outcome in finished:
            outcomes[fold_name, name] = outcome
            if isinstance(outcome, Failure):
                info(f"cross_validate: {name} failed without {fold_name}: {outcome.error}")
            else:
                store.write(fold_name, name, outcome)
            bar.update()
    return {(fold.name, name): outcomes[fold.name, name] for fold in folds for name in methods}


def run_fold(
    spots: SpotTable, fold: Fold, methods: FitFunctions, *, device: str, keep_models: bool = False
) -> Iterator[tuple[str, Outcome | Failure]]:
    """Run some methods in one fold."""
    training, test = fold_data(spots, fold, device=device)
    for name, function in methods.items():
        outcome = run_method(
            name, function, training, test, fold=fold, device=device, keep_models=keep_models
        )
        yield name, outcome


def _in_turn(
    spots: SpotTable,
    folds: Folds,
    missing: dict[str, FitFunctions],
    device: str,
    keep_models: bool,
) -> Iterator[tuple[str, str, Outcome | Failure]]:
    for fold in folds:
        if not missing[fold.name]:
            continue
        for name, outcome in run_fold(
            spots, fold, missing[fold.name], device=device, keep_models=keep_models
        ):
            yield fold.name, name, outcome


def _on_workers(
    client: Any,
    spots: SpotTable,
    folds: Folds,
    missing: dict[str, FitFunctions],
    device: str,
    keep_models: bool,
) -> Iterator[tuple[str, str, Outcome | Failure]]:
    from distributed import as_completed

    # with hash=True a second run would reuse a key that the first one is about to release
    shared = client.scatter([spots], broadcast=True, hash=False)[0]
    futures = {
        client.submit(
            run_on_worker,
            os.getpid(),
            _run_one,
            shared,
            fold,
            name,
            function,
            device,
            keep_models,
            pure=False,
        ): (fold.name, name)
        for fold in folds
        for name, function in missing[fold.name].items()
    }
    for future, outcome in as_completed(list(futures), with_results=True):
        yield *futures[future], outcome


def _run_one(
    spots: SpotTable,
    fold: Fold,
    name: str,
    function: Any,
    device: str,
    keep_models: bool,
) -> Outcome | Failure:
    ((_, outcome),) = run_fold(
        spots, fold, {name: function}, device=device, keep_models=keep_models
    )
    return outcome
