"""Workers of a dask cluster, or of this machine."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import dask

from stpredict._settings import settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

#: Workers may be threads of one process. They share torch's random state, and pandas' options,
#: which change while a table is sliced: they take turns.
_TURN = threading.Lock()


def active_client() -> Any:
    """The active client of a dask cluster; None if there is none."""
    distributed = sys.modules.get("distributed")  # without the import there is no client
    if distributed is None:
        return None
    try:
        return distributed.get_client()
    except ValueError:
        return None


def open_client(client: Any, *, n_jobs: int) -> AbstractContextManager[Any]:
    """The given or active client, or one of new processes; None for one job without a client."""
    client = active_client() if client is None else client
    return nullcontext(client) if client is not None or n_jobs == 1 else _local_client(n_jobs)


@contextmanager
def _local_client(n_jobs: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(n_workers=n_jobs, **options) as cluster, Client(cluster) as client:
        yield client


def run_on_worker(caller: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a job on a worker; ``caller`` is the id of the process that sent it."""
    if os.getpid() != caller:  # progress bars of several processes would overwrite each other
        settings.verbosity = 0
    # dask sends computations of its own threads to the cluster, where the job would wait for
    # workers that wait for it; in another thread, they run in this process
    with (
        _TURN,
        dask.config.set(scheduler="synchronous"),
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        return thread.submit(function, *arguments).result()
