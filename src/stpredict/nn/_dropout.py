"""Dropout masks, and the chunks of rows in which ensembles are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Elements of a (members, rows, width) transient. On a CPU the speed hardly depends on it: smaller
# chunks use less memory, larger ones make the cores wait for each other less often.
_CHUNK_CPU = 1 << 23
_CHUNK_ACCELERATOR = 1 << 25


def keep_mask(shape: tuple[int, ...], *, p: float, device: torch.device) -> Tensor:
    """Draw a dropout mask: True with probability ``1 - p``, independently for each element.

    On a CPU torch draws one number per element, which costs as much as the matrix product that
    is masked. Four 16-bit draws from each 64-bit one are ten times as fast; ``p`` is thereby
    rounded to the next 1/65536.
    """
    if device.type != "cpu":
        return torch.rand(shape, device=device) >= p
    n = math.prod(shape)
    bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    # int16 values start at -2**15
    threshold = min(round(p * 2**16), 2**16 - 1) - 2**15
    return (bits[:n] >= threshold).view(shape)


def row_chunks(n_rows: int, per_row: int, *, device: torch.device) -> Iterator[slice]:
    """Slices of rows with bounded transients of ``per_row`` elements per row."""
    budget = _CHUNK_CPU if device.type == "cpu" else _CHUNK_ACCELERATOR
    step = max(64, budget // per_row)
    for start in range(0, n_rows, step):
        yield slice(start, start + step)
