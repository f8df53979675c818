"""Messages about what a step did."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.auto import tqdm as any_tqdm  # in notebooks a widget

from stpredict._settings import settings

SPATIALDATA = "spatialdata._logging"  # squidpy reports under this name, too


def info(message: str) -> None:
    """Print a message of a step, unless ``settings.verbosity`` is 0."""
    if settings.verbosity > 0:
        tqdm.write(message)  # between progress bars, not into them


@contextmanager
def importing_squidpy() -> Iterator[None]:
    """Hide the warnings about squidpy's own docstrings while it is imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'.*' is not a valid key", SyntaxWarning)
        yield


@contextmanager
def writing_quietly() -> Iterator[None]:
    """Hide warnings about calls inside spatialdata while it writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "zarr v3 autosharding will be the default", UserWarning)
        warnings.filterwarnings("ignore", "Call to deprecated class Scaler", DeprecationWarning)
        yield


_SHOW_BARS = ContextVar("show_bars", default=True)


def shows_bars() -> bool:
    """Whether progress bars are shown: at ``settings.verbosity`` 1, outside `hidden_bars`."""
    return settings.verbosity > 0 and _SHOW_BARS.get()


def progress_bar(iterable: Any = None, *, description: str, **options: Any) -> Any:
    """Progress bar of tqdm, which may be hidden."""
    return any_tqdm(iterable, desc=description, disable=not shows_bars(), **options)


#: Bars that several steps share, by unit.
_SHARED_BARS: ContextVar[dict[str, Any]] = ContextVar("shared_bars", default={})  # noqa: B039


@contextmanager
def bar_over(total: int, description: str, *, unit: str) -> Iterator[Any]:
    """Progress bar of a step, or the bar of the same unit that several steps share."""
    if (shared := _SHARED_BARS.get().get(unit)) is not None:
        yield shared
        return
    with progress_bar(total=total, description=description, unit=unit) as bar:
        yield bar


@contextmanager
def shared_bar(total: int, description: str, *, unit: str) -> Iterator[None]:
    """One progress bar over all steps inside it that count the same unit."""
    with bar_over(total, description, unit=unit) as bar:
        token = _SHARED_BARS.set({**_SHARED_BARS.get(), unit: bar})
        try:
            yield
        finally:
            _SHARED_BARS.reset(token)


@contextmanager
def hidden_bars() -> Iterator[None]:
    """Hide the bars of parts of a task that has its own, or that writes to a log file."""
    token = _SHOW_BARS.set(False)
    try:
        yield
    finally:
        _SHOW_BARS.reset(token)


def warn(message: str) -> None:
    """Warn at the line of the user's code that called the package."""
    # Python 3.12 has skip_file_prefixes= for this
    package, frame, level = str(Path(__file__).parent), sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@contextmanager
def quiet(logger: str, *, least: int = logging.WARNING) -> Iterator[None]:
    """Silence what a library reports of its own workings, but by default not its warnings."""
    named = logging.getLogger(logger)
    level = named.level
    named.setLevel(least)
    try:
        yield
    finally:
        named.setLevel(level)
