"""Settings of the package."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)  # a setting that does not exist raises AttributeError
class Settings:
    """Settings of a session.

    ``verbosity`` 0 shows only warnings, 1 (default) also progress bars and messages of steps. Other
    values raise ValueError.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    """

    verbosity: int = 1

    def __setattr__(self, name: str, value: int) -> None:
        """Set a setting, checked."""
        if name == "verbosity" and value not in (0, 1):
            raise ValueError(
                f"settings.verbosity must be 0 (only warnings) or 1 (also progress bars and "
                f"messages), not {value!r}"
            )
        object.__setattr__(self, name, value)


settings = Settings()
