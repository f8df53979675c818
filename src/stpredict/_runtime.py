"""Devices, threads and memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"`` into cuda, mps or cpu, whichever is available first; check other names."""
    counts = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    available = [name for name, count in counts.items() if count]
    if isinstance(device, str) and device == "auto":
        return torch.device(available[0])
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):  # torch knows no such name
        resolved = torch.device("meta")
    if (resolved.index or 0) >= counts.get(resolved.type, 0):
        names = ", ".join(map(repr, ("auto", *available)))
        raise ValueError(f"device={device!r} is not available on this machine: use one of {names}")
    return resolved


def all_devices(device: torch.device) -> list[torch.device]:
    """All GPUs for ``cuda`` without a number, otherwise the device alone."""
    if device.type != "cuda" or device.index is not None:
        return [device]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch on the CPU and on a device; the random states before are restored at the end."""
    # fork_rng and torch.manual_seed would initialise or seed accelerators that are not used
    gpus = range(torch.cuda.device_count()) if device.type == "cuda" else []
    apple = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
        if apple is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if apple is not None:
                torch.mps.set_rng_state(apple)


@contextmanager
def single_threaded(n: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of n threads, in each of which torch keeps to one core.

    Torch splits every operation over all cores and waits for the slowest. With many small
    operations, or next to another program that needs a core, that takes several times as long as
    the work itself.
    """
    n_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(n_threads)  # threads that are started later inherit this number


def return_memory() -> None:
    """Return freed memory to the system, which glibc otherwise keeps after large images."""
    with suppress(OSError, AttributeError):  # other systems have no such function
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory() -> float:
    """Highest resident size of this process so far in bytes; missing on Windows."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count the process that started this one, too
        lines = status.read_text("ascii").splitlines()
        line = next(line for line in lines if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return float("nan")
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
