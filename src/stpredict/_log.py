"""Messages about what a step did."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from stpredict._settings import settings

SPATIALDATA = "spatialdata._logging"  # squidpy reports under this name, too


def info(message: str) -> None:
    """Print a message of a step, unless ``settings.verbosity`` is 0."""
    if settings.verbosity > 0:
        tqdm.write(message)  # between progress bars, not into them


def warn(message: str) -> None:
    """Warn at the line of the user's code that called the package."""
    # Python 3.12 has skip_file_prefixes= for this
    package, frame, level = str(Path(__file__).parent), sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Silence what a library reports of its own workings, but not its warnings."""
    named = logging.getLogger(logger)
    level = named.level
    named.setLevel(logging.WARNING)
    try:
        yield
    finally:
        named.setLevel(level)
