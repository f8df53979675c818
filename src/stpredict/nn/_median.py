"""The median of an ensemble of linear layers, with a cheap gradient.

Only the member that is the median receives a gradient, so the forward pass stores its number only,
one byte per output, and the gradient of the weight is a sparse product.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stpredict.nn._dropout import keep_mask, row_chunks

# The winning member is stored in one byte; the highest value marks outputs without gradient.
_NO_WINNER = 255
MAX_MEMBERS = _NO_WINNER

# Rows of the sparse backward product, so that its input (rows, in) stays in the CPU's cache.
_BACKWARD_ROWS_CPU = 2048


def lower_median(planes: Tensor) -> Tensor:
    """Median over the first dimension, the lower one for even numbers, as in `torch.median`.

    NaN if a member is NaN.
    """
    # Minima and maxima of whole planes: `torch.median` sorts each column separately, with which a
    # step of DeepSets (10 members, 512 units, 2000 rows) takes 1.6 to 1.8 times as long on a CPU.
    column = list(planes.unbind(0))
    rank = (len(column) - 1) // 2
    # a bubble sort that ends at the median
    for place in range(rank):
        for i in range(len(column) - 1, place, -1):
            low, high = column[i - 1], column[i]
            column[i - 1], column[i] = torch.minimum(low, high), torch.maximum(low, high)
    return functools.reduce(torch.minimum, column[rank:])


class MedianReLULinear(torch.autograd.Function):
    """``relu(median_e(dropout(x @ W_e.T + b_e)))``, storing only which member won."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        p: float,
        dtype: torch.dtype,
        with_grad: bool,
    ) -> Tensor:
        members, n_out, _ = weight.shape
        x_cast, columns = x.to(dtype), weight.to(dtype).transpose(1, 2)
        offset = bias.to(dtype).unsqueeze(1)
        out = x.new_empty((len(x), n_out), dtype=dtype)
        winner = x.new_empty((len(x) if with_grad else 0, n_out), dtype=torch.uint8)
        # chunks bound the (members, rows, out) transient for any size of batch
        for rows in row_chunks(len(x), members * n_out, device=x.device):
            # expand, not copy: all members see the same rows
            part = x_cast[rows]
            z = torch.baddbmm(offset, part.expand(members, *part.shape), columns)
            if p:
                # dropout before the median, with one mask per member
                z.mul_(keep_mask(tuple(z.shape), p=p, device=z.device))
            median = lower_median(z)
            if with_grad:
                winner[rows] = _find_winner(z, median)
            # ReLU is monotone, so it is applied once, after the median
            out[rows] = median.relu()
        # Dropout's factor is positive and common to all members: it commutes with median and ReLU.
        out /= 1 - p
        ctx.save_for_backward(x, weight, winner)
        ctx.p, ctx.dtype = p, dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, winner = ctx.saved_tensors
        backward = _backward_sparse if x.device.type == "cpu" else _backward_dense
        needs = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
        grads = backward(x.to(ctx.dtype), weight, winner, grad / (1 - ctx.p), *needs)
        # no gradients for p, dtype and with_grad
        return *grads, None, None, None


def _find_winner(z: Tensor, median: Tensor) -> Tensor:
    """Number of the member that is the median, uint8; `_NO_WINNER` where ReLU gives 0."""
    is_median = (z == median).view(torch.uint8)
    # The last of tied members wins, so that exactly one receives the gradient.
    winner = is_median.mul_(_member_numbers(len(z), z.device)).amax(0)
    return winner.masked_fill_(median <= 0, _NO_WINNER)


def _member_numbers(n: int, device: torch.device) -> Tensor:
    return torch.arange(n, dtype=torch.uint8, device=device).view(-1, 1, 1)


def _sum_bags(bag: Tensor, row: Tensor, value: Tensor, *, table: Tensor, n_bags: int) -> Tensor:
    """Sum ``value * table[row]`` per sorted bag: a sparse matrix times a dense one."""
    # embedding_bag has the fastest kernel on a CPU; torch's sparse tensors are still a beta
    count = torch.bincount(bag, minlength=n_bags)
    offset = count.cumsum(0) - count
    return F.embedding_bag(row, table, offset, mode="sum", per_sample_weights=value)


def _backward_sparse(
    x: Tensor, weight: Tensor, winner: Tensor, grad: Tensor, with_input: bool, with_weight: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of input, weight and bias from the non-zero entries only."""
    members, n_out, n_in = weight.shape
    units = weight.detach().to(x.dtype).view(members * n_out, n_in)
    grad_weight, grad_bias = weight.new_zeros(units.shape), weight.new_zeros(len(units))
    grad_x = torch.empty_like(x) if with_input else None
    member = _member_numbers(members, x.device)
    for rows in (slice(i, i + _BACKWARD_ROWS_CPU) for i in range(0, len(x), _BACKWARD_ROWS_CPU)):
        part, part_grad, part_winner = x[rows], grad[rows], winner[rows]
        if with_weight:
            # entries (member × output, row) with a gradient
            won = part_winner.t().contiguous() == member
            unit, row = won.view(len(units), -1).nonzero(as_tuple=True)
            value = part_grad[row, unit % n_out]
            grad_weight += _sum_bags(unit, row, value, table=part, n_bags=len(units))
            grad_bias.index_add_(0, unit, value.to(grad_bias.dtype))
        if grad_x is not None:
            row, column = (part_winner != _NO_WINNER).nonzero(as_tuple=True)
            # row of the flattened weight of the winning member
            unit = part_winner[row, column].long() * n_out + column
            value = part_grad[row, column]
            grad_x[rows] = _sum_bags(row, unit, value, table=units, n_bags=len(part))
    return grad_x, grad_weight.view_as(weight), grad_bias.view(members, n_out)


def _backward_dense(
    x: Tensor, weight: Tensor, winner: Tensor, grad: Tensor, with_input: bool, with_weight: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of input, weight and bias by dense products, fastest on accelerators."""
    members, n_out, _ = weight.shape
    grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros((members, n_out))
    grad_x = torch.empty_like(x) if with_input else None
    member = _member_numbers(members, x.device)
    for rows in row_chunks(len(x), members * n_out, device=x.device):
        part = x[rows]
        spread = grad[rows] * (winner[rows] == member)
        if with_weight:
            grad_weight += torch.bmm(spread.transpose(1, 2), part.expand(members, *part.shape))
            grad_bias += spread.sum(1)
        if grad_x is not None:
            grad_x[rows] = torch.bmm(spread, weight.to(spread.dtype)).sum(0)
    return grad_x, grad_weight, grad_bias
