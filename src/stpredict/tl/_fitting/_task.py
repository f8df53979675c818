"""What a ``fit_*`` function is asked to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

TargetKind = Literal["genes", "svd", "nmf", "autoencoder"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Arguments that the ``fit_*`` functions share; their docstrings describe them."""

    embedding: str | None = None  # None for models on pixels
    context: str = "spot"
    genes: Sequence[str] | None
    layer: str | None
    groups: str | None = None
    targets: TargetKind
    n_factors: int | None = None
    scaling: Literal["standard", "robust", "none"] | None
    seed: int = 0
    sample_weight: str | None = None
    loss: str | nn.Module = "mse"
    device: str = "cpu"
    per_10k: bool = False  # learn counts per 10,000, as models of counts predict
