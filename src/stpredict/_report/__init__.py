"""One page in HTML of what a cross-validation found."""

from __future__ import annotations

from stpredict._report._report import report

__all__ = ["report"]
