"""Settings of the package."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)  # a setting that does not exist raises AttributeError
class Settings:
    """Settings of a session.

    ``verbosity`` 0 shows only warnings, 1 (default) also progress bars and messages of steps. Other
    values raise ValueError.

    ``cache_dir`` is the folder of downloaded data and of the embeddings that
    ``pp.embed(…, cache=True)`` stores. None (default) is the folder in the environment variable
    ``STPREDICT_CACHE``, else the user's cache folder. Anything but a path or None raises TypeError.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    """

    verbosity: int = 1
    cache_dir: str | Path | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a setting, checked."""
        if name == "verbosity" and value not in (0, 1):
            raise ValueError(
                f"settings.verbosity must be 0 (only warnings) or 1 (also progress bars and "
                f"messages), not {value!r}"
            )
        if name == "cache_dir" and not isinstance(value, str | os.PathLike | None):
            raise TypeError(f"settings.cache_dir must be a path or None, not {value!r}")
        object.__setattr__(self, name, value)


settings = Settings()


def cache_folder() -> Path:
    """Folder of downloaded data and stored embeddings; it may not exist yet."""
    if settings.cache_dir is not None:
        return Path(settings.cache_dir).expanduser()
    import pooch

    return Path(os.environ.get("STPREDICT_CACHE", pooch.os_cache("stpredict")))
