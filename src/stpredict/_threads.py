"""Threads that do not fight over the cores."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def single_threaded(n: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of n threads, in each of which torch keeps to one core.

    Torch splits every operation over all cores and waits for the slowest. With many small
    operations, or beside another program that needs a core, that takes several times as long as
    the work itself.
    """
    n_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(n_threads)  # what threads that are started later begin with
