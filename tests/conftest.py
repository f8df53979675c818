"""Conditions that every test meets: no display, and one thread."""

from __future__ import annotations

import os

# Read when matplotlib and torch are first imported, so set without importing either.
os.environ["MPLBACKEND"] = "agg"
# The tensors of tests are small: on a busy machine, threads that wait for one another take
# several times as long as one alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")
