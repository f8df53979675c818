"""Ensembles of linear layers with one weight ``(members, out, in)``, as one matrix product."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stpredict.nn._dropout import keep_mask, row_chunks
from stpredict.nn._median import MedianReLULinear


class _MeanLinear(torch.autograd.Function):
    """``mean_e(dropout(dropout(x) @ W_e.T + b_e))`` in training, keeping only the two masks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        p_in: float,
        p_out: float,
        dtype: torch.dtype,
    ) -> Tensor:
        members, n_out, n_in = weight.shape
        scaled, columns = x.to(dtype) / (1 - p_in), weight.to(dtype).transpose(1, 2)
        offset = bias.to(dtype).unsqueeze(1)
        # masks are bytes: a fourth of the memory of the dropped inputs
        keep_in = keep_mask((members, len(x), n_in), p=p_in, device=x.device)
        keep_out = keep_mask((members, len(x), n_out), p=p_out, device=x.device)
        out = x.new_empty((len(x), n_out), dtype=dtype)
        # chunks bound the (members, rows, width) transients for any size of batch
        for rows in row_chunks(len(x), members * max(n_in, n_out), device=x.device):
            z = torch.baddbmm(offset, scaled[rows] * keep_in[:, rows], columns)
            out[rows] = z.mul_(keep_out[:, rows]).sum(0)
        # mean over members and the scaling of the output dropout in one factor
        ctx.factor = 1 / (members * (1 - p_out))
        ctx.p_in, ctx.dtype = p_in, dtype
        ctx.save_for_backward(x, weight, keep_in, keep_out)
        return out.mul_(ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, keep_in, keep_out = ctx.saved_tensors
        members, n_out, n_in = weight.shape
        scaled, weight_cast = x.to(ctx.dtype) / (1 - ctx.p_in), weight.to(ctx.dtype)
        grad = grad * ctx.factor
        grad_x = torch.empty_like(scaled)
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros((members, n_out))
        for rows in row_chunks(len(x), members * max(n_in, n_out), device=x.device):
            grad_z = grad[rows] * keep_out[:, rows]
            # recomputed instead of stored in the forward pass
            dropped = scaled[rows] * keep_in[:, rows]
            if grad_weight.dtype == ctx.dtype:  # in place, without a second (members, out, in)
                grad_weight.baddbmm_(grad_z.transpose(1, 2), dropped)
            else:
                grad_weight += torch.bmm(grad_z.transpose(1, 2), dropped)
            grad_bias += grad_z.sum(1)
            grad_x[rows] = torch.bmm(grad_z, weight_cast).mul_(keep_in[:, rows]).sum(0)
        return grad_x.div_(1 - ctx.p_in), grad_weight, grad_bias, None, None, None


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Type in which a product of ``x`` runs, which autocast may change."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class LinearEnsemble(nn.Module):
    """Weights of an ensemble of linear layers, initialised like `torch.nn.Linear`."""

    def __init__(self, n_in: int, n_out: int, *, n_members: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout  # of the input or the output of a member
        self.weight = nn.Parameter(torch.empty(n_members, n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_members, n_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly within ``1 / sqrt(n_in)``."""
        bound = 1 / math.sqrt(self.weight.shape[-1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Sizes in the printed module."""
        members, n_out, n_in = self.weight.shape
        return f"{n_in}, {n_out}, n_members={members}, dropout={self.dropout}"


class MedianEnsemble(LinearEnsemble):
    """phi: linear, dropout, ReLU; the median over the members."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(m, n_in)`` to ``(m, n_out)``."""
        dtype = _compute_dtype(x)
        p = self.dropout if self.training else 0.0
        with_grad = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        # the function converts to this type itself
        with torch.autocast(x.device.type, enabled=False):
            return MedianReLULinear.apply(x, self.weight, self.bias, p, dtype, with_grad)


class MeanEnsemble(LinearEnsemble):
    """rho: dropout, ReLU, linear, dropout; the mean over the members."""

    def __init__(
        self, n_in: int, n_out: int, *, n_members: int, dropout: float, output_dropout: float
    ) -> None:
        super().__init__(n_in, n_out, n_members=n_members, dropout=dropout)
        self.output_dropout = output_dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, n_in)`` to ``(n, n_out)``."""
        # Dropout only scales or zeroes, so it commutes with ReLU.
        x = x.relu()
        if not self.training or not (self.dropout or self.output_dropout):
            # Without dropout, the mean of linear layers is one linear layer with mean weights.
            return F.linear(x, self.weight.mean(0), self.bias.mean(0))
        dtype, dropouts = _compute_dtype(x), (self.dropout, self.output_dropout)
        with torch.autocast(x.device.type, enabled=False):
            return _MeanLinear.apply(x, self.weight, self.bias, *dropouts, dtype)

    def members(self, x: Tensor) -> Tensor:
        """Output of each member without dropout: ``(n, n_in)`` to ``(members, n, n_out)``."""
        return torch.baddbmm(
            self.bias.unsqueeze(1),
            x.relu().expand(len(self.weight), *x.shape),
            self.weight.transpose(1, 2),
        )
