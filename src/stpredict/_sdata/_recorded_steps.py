"""All repeatable steps that were recorded for a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from stpredict import _keys
from stpredict._sdata._steps import (
    BalanceStep,
    EmbedStep,
    LayerStep,
    NeighborsStep,
    NormalizeStainStep,
    NormalizeStep,
    RankStep,
    SelectGenesStep,
    SmoothStep,
    Step,
)

#: Steps that are recorded in ``uns`` and can be repeated.
REPEATABLE: tuple[type[Step], ...] = (
    NormalizeStainStep,
    EmbedStep,
    NeighborsStep,
    NormalizeStep,
    SmoothStep,
    RankStep,
    SelectGenesStep,
    BalanceStep,
)


@dataclass(frozen=True)
class RecordedSteps:
    """All repeatable steps that were recorded for a table; those of slots by slot."""

    normalize_stain: NormalizeStainStep | None = None
    embed: dict[str, EmbedStep] = field(default_factory=dict)
    neighbors: NeighborsStep | None = None
    normalize: NormalizeStep | None = None
    smooth: dict[str, SmoothStep] = field(default_factory=dict)
    rank_expression: dict[str, RankStep] = field(default_factory=dict)
    select_genes: SelectGenesStep | None = None
    balance: BalanceStep | None = None

    def layer(self, layer: str | None) -> tuple[LayerStep, ...]:
        """Steps that make a layer from counts, in order; none for ``X`` and the user's layers."""
        steps: list[LayerStep] = []
        derived: dict[str | None, SmoothStep | RankStep] = {}
        derived.update(self.smooth)
        derived.update(self.rank_expression)
        while layer in derived:
            step = derived.pop(layer)  # popped, so that a circular record ends
            steps.insert(0, step)
            layer = step.layer
        if layer == _keys.LOG1P and self.normalize is not None:
            steps.insert(0, self.normalize)
        return tuple(steps)
