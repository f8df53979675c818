"""Networks over sets: from a spot's tile, sub-tiles and neighbours to targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._check import (
    check_choice,
    check_dtype,
    check_index,
    check_mask,
    check_shape,
    check_sizes,
)


class SetNetwork(nn.Module):
    """Base of networks over sets: encode each tile, pool the sets, predict.

    ``encode`` maps each tile, ``pool`` sums over sub-tiles, reduces neighbours and concatenates
    ``[spot, sub-tiles, neighbours]``, ``head`` maps the result to the targets. A subclass defines
    ``contexts``, ``output_axes``, ``_encode`` and ``head``, and ``member_heads`` if it is an
    ensemble.

    Parameters
    ----------
    n_features, n_targets
        Width of an embedding, and number of targets.
    n_encoded
        Width of the output of ``encode``.
    context
        Inputs of the network, one of ``contexts``.
    aggregation
        Reduction of neighbours.

    Attributes
    ----------
    contexts
        For each context, whether it uses sub-tiles and whether it uses neighbours.
    output_axes
        Name in the state dict to axis of the targets, for each tensor with one entry per target.

    Raises
    ------
    ValueError
        If the context or the aggregation is unknown, or a size is below 1.
    """

    contexts: ClassVar[Mapping[str, tuple[bool, bool]]]
    output_axes: ClassVar[Mapping[str, int]]

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        n_encoded: int,
        context: str,
        aggregation: Literal["max", "mean", "sum"],
    ) -> None:
        super().__init__()
        check_choice("context", context, self.contexts)
        check_choice("aggregation", aggregation, ("max", "mean", "sum"))
        check_sizes(n_features=n_features, n_targets=n_targets)
        self.context, self.aggregation = context, aggregation
        self.uses_subtiles, self.uses_neighbors = self.contexts[context]
        self.n_features, self.n_targets, self.n_encoded = n_features, n_targets, n_encoded

    @property
    def n_pooled(self) -> int:
        """Width of the output of ``pool``."""
        return (1 + self.uses_subtiles + self.uses_neighbors) * self.n_encoded

    def forward(
        self,
        center: Tensor,
        subtiles: Tensor | None = None,
        neighbors: Tensor | None = None,
        neighbor_mask: Tensor | None = None,
    ) -> Tensor:
        """Predict the targets of ``n`` spots.

        Parameters
        ----------
        center
            ``(n, n_features)``, embeddings of the spots' tiles.
        subtiles
            ``(n, s, n_features)``, required if and only if the context has ``subspot``.
        neighbors
            ``(n, k, n_features)``, required if and only if the context has ``neighbors``.
        neighbor_mask
            ``(n, k)`` bool, True for a neighbour and False for padding, which is ignored. A spot
            without neighbours gets zeros in their place. Without a mask, all rows are used.

        Returns
        -------
        Tensor
            ``(n, n_targets)``.

        Raises
        ------
        ValueError
            If an input is missing, unused or of the wrong shape.
        """
        check_shape("center", center, (None, self.n_features))
        subtiles_h = self._encode_sets("subtiles", subtiles, len(center))
        neighbors_h = self._encode_sets("neighbors", neighbors, len(center))
        return self.head(self.pool(self.encode(center), subtiles_h, neighbors_h, neighbor_mask))

    def forward_gathered(
        self,
        tiles: Tensor,
        *,
        center: Tensor,
        subtiles: Tensor | None = None,
        neighbors: Tensor | None = None,
        neighbor_mask: Tensor | None = None,
    ) -> Tensor:
        """Predict as `forward` does, but run phi once for each distinct tile of the batch.

        In evaluation the two agree. In training, a tile has one dropout mask for all its spots.

        Parameters
        ----------
        tiles
            ``(m, n_features)``, embeddings of the distinct tiles: spots and their neighbours.
        center, neighbors
            ``(n,)`` and ``(n, k)`` int64, rows of ``tiles`` of each spot and of its neighbours.
        subtiles, neighbor_mask
            Inputs of `forward`. Where the mask is False, ``neighbors`` may be any number.

        Returns
        -------
        Tensor
            ``(n, n_targets)``. Errors are those of `forward`, and rows out of range.
        """
        check_shape("center", center, (None,))
        check_index("center", center, len(tiles))
        if neighbors is not None:
            check_shape("neighbors", neighbors, (len(center), None))
            if neighbor_mask is not None:
                check_mask(neighbor_mask, tuple(neighbors.shape))
                neighbors = neighbors.masked_fill(~neighbor_mask, 0)
            check_index("neighbors", neighbors, len(tiles))
        tiles_h = self.encode(tiles)
        # the backward pass of `embedding`, unlike that of indexing, is parallel and deterministic
        pooled = self.pool(
            F.embedding(center, tiles_h),
            self._encode_sets("subtiles", subtiles, len(center)),
            None if neighbors is None else F.embedding(neighbors, tiles_h),
            neighbor_mask,
        )
        return self.head(pooled)

    def encode(self, tiles: Tensor) -> Tensor:
        """Map each tile: ``(m, n_features)``, of the weights' type, to ``(m, n_encoded)``."""
        check_shape("tiles", tiles, (None, self.n_features))
        weight = next(self.parameters(), None)  # networks of buffers alone take any type
        if weight is not None:
            check_dtype(tiles, weight.dtype)
        return self._encode(tiles)

    def pool(
        self,
        center_h: Tensor,
        subtiles_h: Tensor | None = None,
        neighbors_h: Tensor | None = None,
        neighbor_mask: Tensor | None = None,
    ) -> Tensor:
        """Reduce sub-tiles and neighbours, and concatenate: ``(n, n_pooled)``.

        The inputs are those of `forward` after ``encode``: ``(n, n_encoded)``,
        ``(n, s, n_encoded)`` and ``(n, k, n_encoded)``. They are checked in the same way.
        """
        self._check_uses("subtiles", subtiles_h, self.uses_subtiles)
        self._check_uses("neighbors", neighbors_h, self.uses_neighbors)
        check_shape("center_h", center_h, (None, self.n_encoded))
        n = len(center_h)
        parts = [center_h]
        if subtiles_h is not None:
            check_shape("subtiles_h", subtiles_h, (n, None, self.n_encoded))
            parts.append(subtiles_h.sum(1))
        if neighbors_h is not None:
            check_shape("neighbors_h", neighbors_h, (n, None, self.n_encoded))
            if neighbor_mask is not None:
                check_mask(neighbor_mask, tuple(neighbors_h.shape[:2]))
            parts.append(self._aggregate(neighbors_h, neighbor_mask))
        elif neighbor_mask is not None:
            raise ValueError(f"context={self.context!r} takes no neighbors: omit neighbor_mask=.")
        return torch.cat(parts, dim=1)

    def head(self, pooled: Tensor) -> Tensor:
        """Predict from the output of ``pool``: ``(n, n_pooled)`` to ``(n, n_targets)``."""
        raise NotImplementedError

    def member_heads(self, pooled: Tensor) -> Tensor | None:
        """Prediction of each member, ``(members, n, n_targets)``; None without an ensemble."""
        return None

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """Outputs of ``head`` and ``member_heads``."""
        return self.head(pooled), self.member_heads(pooled)

    def _encode(self, tiles: Tensor) -> Tensor:
        raise NotImplementedError

    def _encode_sets(self, name: str, sets: Tensor | None, n: int) -> Tensor | None:
        """Encode ``(n, k, n_features)`` to ``(n, k, n_encoded)``."""
        if sets is None:
            return None
        check_shape(name, sets, (n, None, self.n_features))
        return self.encode(sets.flatten(0, 1)).unflatten(0, sets.shape[:2])

    def _check_uses(self, name: str, value: Tensor | None, is_used: bool) -> None:
        if (value is not None) != is_used:
            remedy = f"needs {name}: pass" if is_used else f"takes no {name}: omit"
            raise ValueError(f"context={self.context!r} {remedy} {name}=.")

    def _aggregate(self, neighbors_h: Tensor, mask: Tensor | None) -> Tensor:
        """Reduce ``(n, k, h)`` to ``(n, h)``; zeros for a spot without neighbours."""
        n, k, n_encoded = neighbors_h.shape
        if k == 0:
            return neighbors_h.new_zeros(n, n_encoded)
        if self.aggregation == "max":
            if mask is None:
                return _maximum(neighbors_h)
            maximum = _maximum(neighbors_h.masked_fill(~mask.unsqueeze(-1), -torch.inf))
            return maximum.masked_fill(~mask.any(1, keepdim=True), 0)
        if mask is None:
            return neighbors_h.sum(1) if self.aggregation == "sum" else neighbors_h.mean(1)
        total = neighbors_h.masked_fill(~mask.unsqueeze(-1), 0).sum(1)
        count = mask.sum(1, keepdim=True).clamp(min=1)
        return total if self.aggregation == "sum" else total / count


def _maximum(neighbors_h: Tensor) -> Tensor:
    # amax is ten times as fast, but splits the gradient evenly among ties
    return neighbors_h.max(1).values if neighbors_h.requires_grad else neighbors_h.amax(1)
