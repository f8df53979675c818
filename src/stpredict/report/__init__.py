"""HTML reports."""

from stpredict.report._write_html import write_html

__all__ = ["write_html"]


def __dir__() -> list[str]:
    return sorted(__all__)
