"""Losses of rankings: of a spot's targets, after HEVisum, and of a section's spots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stpredict.nn._check import check_choice
from stpredict.nn.losses._base import Loss

# Pairs per chunk: few enough for the cache of a CPU, enough to use an accelerator fully.
_CHUNK_CPU, _CHUNK_ACCELERATOR = 2**17, 2**25


class _Pairwise(torch.autograd.Function):
    """Mean cost of the pairs of each spot, (n,), with the gradient computed on the way.

    The mean is over pairs, or weighted by their measured differences.
    """

    @staticmethod
    def forward(
        ctx: Any, predicted: Tensor, target: Tensor, margin: float | None, weighted: bool
    ) -> Tensor:
        cost, pairs = torch.zeros_like(predicted), torch.zeros_like(predicted)
        slope = torch.zeros_like(predicted)
        # all g × g differences of a spot may not fit into memory: only the gradient is stored
        for spots, left in _chunks(*predicted.shape, device=predicted.device):
            difference = target[spots, left, None] - target[spots, None]
            # 1 where the left target is measured above the right one, -1 below, 0 for ties
            order = torch.sign(difference)
            ahead = (predicted[spots, left, None] - predicted[spots, None]).mul_(order)
            # signed weight of each pair, 0 for ties and for a target with itself
            signed = difference if weighted else order
            weight = signed.abs()
            pairs[spots, left] = weight.sum(-1)
            if margin is None:
                # softplus and its derivative
                each, falls = F.softplus(-ahead), torch.sigmoid(-ahead)
            else:
                each = ahead.neg_().add_(margin).clamp_(min=0)
                falls = (each > 0).to(each.dtype)
            cost[spots, left] = each.mul_(weight).sum(-1)
            slope[spots, left] = -falls.mul_(signed).sum(-1)
        # each pair was counted twice, once from each side
        twice = pairs.sum(1)
        twice = torch.where(twice > 0, twice, 1)
        ctx.save_for_backward(2 * slope / twice.unsqueeze(1))
        return cost.sum(1) / twice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        # the stored slope is the derivative, up to the incoming gradient
        return grads[0].unsqueeze(1) * slope, None, None, None


def _chunks(n: int, g: int, *, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Slices of spots and of left targets, each to be paired with all right targets."""
    budget = _CHUNK_CPU if device.type == "cpu" else _CHUNK_ACCELERATOR
    # as many left targets as fit with all g right ones, then as many spots
    lefts = min(g, max(1, budget // g))
    spots = max(1, budget // (lefts * g))
    for first in range(0, n, spots):
        for left in range(0, g, lefts):
            yield slice(first, first + spots), slice(left, left + lefts)


class PairwiseHinge(Loss):
    """Hinge loss over the pairs of a spot's targets, as in HEVisum.

    A pair [1]_ costs ``max(0, margin - (p_j - p_k))`` if target j is measured above target k.
    Averaged over the pairs of a spot, then over spots. A spot with ties only costs 0.

    Parameters
    ----------
    margin
        Difference of two predictions from which a pair costs nothing, in units of the targets.
        Finite and at least 0, else a ValueError is raised.

    References
    ----------
    .. [1] Herbrich et al., Large margin rank boundaries for ordinal regression, 2000.
    """

    name = "pairwise_hinge"
    needs_several_targets = True

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        if not 0 <= margin < float("inf"):
            raise ValueError(f"margin={margin!r} must be a finite number of at least 0.")
        self.margin = margin

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Mean over spots of the mean over pairs."""
        return _Pairwise.apply(predicted, target, self.margin, False).mean()


class PairwiseLogistic(Loss):
    """Logistic loss over the pairs of a spot's targets, as in RankNet and HEVisum.

    A pair [1]_ costs ``log(1 + exp(-(p_j - p_k)))`` if target j is measured above target k.
    Averaged over the pairs of a spot, then over spots. A spot with ties only costs 0.

    References
    ----------
    .. [1] Burges et al., Learning to rank using gradient descent, ICML 2005.
    """

    name = "pairwise_logistic"
    needs_several_targets = True

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Mean over spots of the mean over pairs."""
        return _Pairwise.apply(predicted, target, None, False).mean()


class PairwiseSpots(Loss):
    """Logistic loss over the pairs of a section's spots, gene by gene.

    A pair of spots costs ``log(1 + exp(-(p_i - p_j)))`` if the gene is measured higher in spot i
    than in spot j. Averaged over pairs with the measured differences as weights, then over genes;
    sections are averaged with their numbers of spots as weights. A constant gene costs 0.

    PairSTRank [1]_ is the binomial likelihood of the counts of two spots of a section, given their
    total: the same logistic function, weighted by both counts. This loss takes any targets, and its
    weight is 0 for ties. It ignores the level of a gene in a section: combine it with `MSE`, as
    `MSEPairwiseSpots` does.

    References
    ----------
    .. [1] Nishimura et al., Learning relative gene expression trends from pathology images in
       spatial transcriptomics, NeurIPS 2025, arXiv:2512.06612.
    """

    name = "pairwise_spots"
    within_sections = True

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Mean over genes of the weighted mean over pairs."""
        return _Pairwise.apply(predicted.T, target.T, None, True).mean()


class HybridRank(Loss):
    """``(1 - w) MSE + w rank loss`` of HEVisum, where w moves to another value in training.

    In evaluation (`torch.nn.Module.eval`), w is always the final value, so that validation losses
    of different epochs are comparable.

    Parameters
    ----------
    rank
        Rank loss; the hinge has a margin of 1.
    schedule
        Function of the progress p from ``initial`` a to ``final`` b: ``"linear"``,
        ``a + (b - a) p``; ``"cosine"``, ``a + (b - a) (1 - cos πp) / 2``; ``"exponential"``,
        ``a (b / a)^p``; ``"log"``, ``a + (b - a) log2(1 + p)``.
    initial, final
        Weight of the rank loss at the start and at the end, in [0, 1]; above 0 for the
        exponential schedule. Other values raise a ValueError.

    Examples
    --------
    >>> from stpredict.nn import losses
    >>> loss = losses.HybridRank(initial=0.25, final=0.75)
    >>> loss.progress = 0.5
    >>> loss.weight
    0.5
    """

    name = "hybrid_rank"
    needs_several_targets = True

    def __init__(
        self,
        *,
        rank: Literal["pairwise_hinge", "pairwise_logistic"] = "pairwise_hinge",
        schedule: Literal["linear", "cosine", "exponential", "log"] = "linear",
        initial: float = 0.3,
        final: float = 0.9,
    ) -> None:
        super().__init__()
        rank_losses = {"pairwise_hinge": PairwiseHinge, "pairwise_logistic": PairwiseLogistic}
        check_choice("rank", rank, rank_losses)
        check_choice("schedule", schedule, ("linear", "cosine", "exponential", "log"))
        for name, weight in {"initial": initial, "final": final}.items():
            # the exponential schedule divides by the initial weight
            if not 0 <= weight <= 1 or (schedule == "exponential" and weight == 0):
                interval = "above 0 and at most 1" if schedule == "exponential" else "in [0, 1]"
                raise ValueError(f"{name}={weight!r} must be {interval}: {schedule} schedule.")
        self.rank = rank_losses[rank]()
        self.schedule, self.initial, self.final = schedule, initial, final

    @property
    def weight(self) -> float:
        """Current weight of the rank loss."""
        if not self.training:
            return self.final
        p = min(max(self.progress, 0.0), 1.0)
        if self.schedule == "exponential":
            return float(self.initial * (self.final / self.initial) ** p)
        fraction = {
            "linear": p,
            "cosine": (1 - math.cos(math.pi * p)) / 2,
            "log": math.log2(1 + p),
        }
        return self.initial + (self.final - self.initial) * fraction[self.schedule]

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """MSE and rank loss with their current weights."""
        rank = self.rank.compute(predicted, target, log_library)
        return (1 - self.weight) * F.mse_loss(predicted, target) + self.weight * rank

    def extra_repr(self) -> str:
        """Schedule in the printed module."""
        return f"schedule={self.schedule!r}, initial={self.initial:g}, final={self.final:g}"
