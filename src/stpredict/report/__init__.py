"""HTML reports."""

from stpredict.report._write_html import write_html
from stpredict.report._write_slides import write_slides

__all__ = ["write_html", "write_slides"]


def __dir__() -> list[str]:
    return sorted(__all__)
