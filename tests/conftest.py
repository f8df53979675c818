"""Condition that every test meets: no display."""

from __future__ import annotations

import os

os.environ["MPLBACKEND"] = "agg"  # read when matplotlib is first imported
