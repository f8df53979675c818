"""Settings of the package."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Settings of a session.

    ``verbosity`` 0 shows only warnings, 1 (default) also progress bars and messages of steps.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    """

    verbosity: int = 1


settings = Settings()
