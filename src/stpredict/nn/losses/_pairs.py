"""Weighted sums of two losses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from stpredict.nn.losses._base import Loss
from stpredict.nn.losses._errors import L1, MSE, Cosine, Huber, Pearson
from stpredict.nn.losses._rank import PairwiseSpots


class WeightedPair(Loss):
    """Weighted sum of two losses that a subclass names in ``kinds``: of values, and of sections.

    The weights are the options ``<name>_weight``, 1 by default; at least 0, not both 0.
    """

    kinds: ClassVar[tuple[type[Loss], type[Loss]]]
    within_sections = True

    def __init__(self, **weights: float) -> None:
        super().__init__()
        self.weights = dict.fromkeys(self.options(), 1.0) | weights
        # direct construction; `make` has checked the options already
        if unknown := weights.keys() - set(self.options()):
            raise TypeError(f"{self.name} has no option {', '.join(sorted(unknown))}.")
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):  # also false for NaN
                raise ValueError(f"{name}={weight!r} must be a finite number of at least 0.")
        if not any(self.weights.values()):
            raise ValueError(f"{' and '.join(self.weights)} are all 0, so nothing is learnt.")
        self.parts = nn.ModuleList(kind() for kind in self.kinds)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the two weights."""
        return tuple(f"{kind.name}_weight" for kind in cls.kinds)

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Sum of the weighted parts."""
        first, second = (
            weight * part.compute(predicted, target, log_library)  # type: ignore[operator]
            for part, weight in zip(self.parts, self.weights.values(), strict=True)
        )
        return first + second

    def extra_repr(self) -> str:
        """Weights in the printed module."""
        return ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())


class MSEPearson(WeightedPair):
    """Sum of `MSE` and `Pearson`, with options ``mse_weight=1.0`` and ``pearson_weight=1.0``."""

    name = "mse_pearson"
    kinds = (MSE, Pearson)


class MSECosine(WeightedPair):
    """Sum of `MSE` and `Cosine`, with options ``mse_weight=1.0`` and ``cosine_weight=1.0``."""

    name = "mse_cosine"
    kinds = (MSE, Cosine)


class L1Cosine(WeightedPair):
    """Sum of `L1` and `Cosine`, with options ``l1_weight=1.0`` and ``cosine_weight=1.0``."""

    name = "l1_cosine"
    kinds = (L1, Cosine)


class HuberCosine(WeightedPair):
    """Sum of `Huber`, delta 1, and `Cosine`: ``huber_weight=1.0`` and ``cosine_weight=1.0``."""

    name = "huber_cosine"
    kinds = (Huber, Cosine)


class MSEPairwiseSpots(WeightedPair):
    """Sum of `MSE` and `PairwiseSpots`: ``mse_weight=1.0`` and ``pairwise_spots_weight=1.0``.

    It keeps both the level and the pattern of a gene.
    """

    name = "mse_pairwise_spots"
    kinds = (MSE, PairwiseSpots)
