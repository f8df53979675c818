"""All methods in all folds: one after the other, or on the workers of a cluster."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from tqdm.auto import tqdm

from stpredict._log import tell
from stpredict._sdata._spot_table import open_table
from stpredict._settings import settings
from stpredict.results import Failure
from stpredict.tl._crossval._fold_data import fold_data
from stpredict.tl._crossval._run import Outcome, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model
    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._crossval._store import Store
    from stpredict.tl._fitting._bases import Fits

#: Workers may be threads of one process, whose random state training draws from, and whose options
#: of pandas change where a table is sliced: they take turns.
_ALONE = threading.Lock()

Outcomes = dict[tuple[str, str], Outcome | Failure]


def run_folds(
    sdata: SpatialData, methods: Fits, folds: Folds, store: Store, *, device: str
) -> Outcomes:
    """Run what the store has not; by fold and method, what came out."""
    outcomes: Outcomes = {}
    jobs: list[tuple[int, str, NDArray[np.intp], dict[str, Callable[..., Model]]]] = []
    for number, (fold, rows) in enumerate(folds):
        for name in methods:
            kept = store.read(number, name)
            if kept is not None:
                outcomes[fold, name] = kept
        left = {name: fit for name, fit in methods.items() if (fold, name) not in outcomes}
        if left:
            jobs.append((number, fold, rows, left))
    if outcomes:
        tell(f"cross_validate: {len(outcomes)} of {len(folds.rows) * len(methods)} were finished")
    client = _client()
    walk = _one_by_one if client is None else _on_workers(client)
    total = sum(len(left) for *_, left in jobs)
    with tqdm(total=total, desc="cross-validate", disable=settings.verbosity < 1) as bar:
        for number, fold, name, outcome in walk(sdata, jobs, folds, device):
            outcomes[fold, name] = outcome
            if isinstance(outcome, Failure):
                tell(f"cross_validate: {name} failed without {fold}: {outcome.error}")
            else:
                store.write(number, name, outcome)
            bar.update()
    return outcomes


def fold_outcomes(
    sdata: SpatialData,
    fold: str,
    rows: NDArray[np.intp],
    methods: dict[str, Callable[..., Model]],
    torn: tuple[str, ...],
    device: str,
) -> Iterator[tuple[str, Outcome | Failure]]:
    """Run some methods in one fold."""
    train, test = fold_data(open_table(sdata), rows, device=device)
    whole = set(test.section_names) - set(torn)
    for name, fit in methods.items():
        yield name, run(name, fit, train.sdata, test.sdata, fold=fold, whole=whole, device=device)


def _one_by_one(
    sdata: SpatialData, jobs: list[Any], folds: Folds, device: str
) -> Iterator[tuple[int, str, str, Outcome | Failure]]:
    for number, fold, rows, methods in jobs:
        for name, outcome in fold_outcomes(sdata, fold, rows, methods, folds.torn, device):
            yield number, fold, name, outcome


def _client() -> Any:
    """The active client of a cluster; None where there is none."""
    distributed = sys.modules.get("distributed")  # without it there is none
    if distributed is None:
        return None
    try:
        return distributed.get_client()
    except ValueError:
        return None


def _on_workers(client: Any) -> Callable[..., Iterator[tuple[int, str, str, Outcome | Failure]]]:
    def walk(
        sdata: SpatialData, jobs: list[Any], folds: Folds, device: str
    ) -> Iterator[tuple[int, str, str, Outcome | Failure]]:
        from distributed import as_completed

        shared = client.scatter([sdata], broadcast=True)[0]
        futures = {
            client.submit(
                _work, shared, fold, rows, {name: fit}, folds.torn, device, os.getpid(), pure=False
            ): (
                number,
                fold,
                name,
            )
            for number, fold, rows, methods in jobs
            for name, fit in methods.items()
        }
        for future, outcome in as_completed(list(futures), with_results=True):
            yield *futures[future], outcome

    return walk


def _work(
    sdata: SpatialData,
    fold: str,
    rows: NDArray[np.intp],
    methods: dict[str, Callable[..., Model]],
    torn: tuple[str, ...],
    device: str,
    caller: int,
) -> Outcome | Failure:
    """One method in one fold, on a worker."""
    if os.getpid() != caller:  # bars of several processes would run into each other
        settings.verbosity = 0
    # images are read in this process: a worker that waits for others would wait forever
    with _ALONE, dask.config.set(scheduler="synchronous"):
        ((_, outcome),) = fold_outcomes(sdata, fold, rows, methods, torn, device)
    return outcome
