"""Messages about what a step did."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from stpredict._settings import settings

SPATIALDATA = "spatialdata._logging"  # squidpy reports under this name, too


def info(message: str) -> None:
    """Print a message of a step, unless ``settings.verbosity`` is 0."""
    if settings.verbosity > 0:
        tqdm.write(message)  # between progress bars, not into them


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
