"""Settings of the package."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """What a session can set once.

    Attributes
    ----------
    verbosity
        0: only warnings. 1 (default): progress bars, and what a step did.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> stp.settings.verbosity = 1
    """

    verbosity: int = 1


settings = Settings()
