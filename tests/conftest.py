"""Conditions that every test meets: no display, and few threads."""

from __future__ import annotations

import os

# Read when matplotlib and torch are first imported, so set without importing either.
os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault("OMP_NUM_THREADS", "2")
