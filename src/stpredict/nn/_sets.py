"""Networks over sets: a spot's tile, its sub-tiles and its neighbours in, targets out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._aggregate import AGGREGATIONS, Aggregation, aggregate
from stpredict.nn._check import (
    check_dtype,
    check_given,
    check_index,
    check_mask,
    check_shape,
)


class SetNetwork(nn.Module):
    """What networks over sets share: encode every tile, pool the sets, predict.

    ``encode`` maps every tile, ``pool`` sums over sub-tiles, reduces neighbours and concatenates
    ``[spot, sub-tiles, neighbours]``, ``head`` maps that to the targets. A network defines
    ``_encode`` and ``head``, and ``member_heads`` where it is an ensemble.

    Parameters
    ----------
    n_features
        Width of an embedding.
    n_targets
        Number of targets.
    n_encoded
        Width of what ``encode`` gives.
    context
        What is looked at beside the spot.
    contexts
        For each context whether sub-tiles and whether neighbours are taken in.
    aggregation
        How neighbours are reduced: ``"max"``, ``"mean"`` or ``"sum"``.

    Raises
    ------
    ValueError
        If the context or the aggregation is unknown, or a size is below 1.
    """

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        n_encoded: int,
        context: str,
        contexts: dict[str, tuple[bool, bool]],
        aggregation: Aggregation,
    ) -> None:
        super().__init__()
        if context not in contexts:
            msg = f"context={context!r} is unknown; choose one of {', '.join(contexts)}."
            raise ValueError(msg)
        if aggregation not in AGGREGATIONS:
            msg = (
                f"aggregation={aggregation!r} is unknown; choose one of {', '.join(AGGREGATIONS)}."
            )
            raise ValueError(msg)
        for name, value in {"n_features": n_features, "n_targets": n_targets}.items():
            if value < 1:
                msg = f"{name}={value} must be at least 1."
                raise ValueError(msg)
        self.context = context
        self.aggregation: Aggregation = aggregation
        self.uses_subtiles, self.uses_neighbors = contexts[context]
        self.n_features, self.n_targets, self.n_encoded = n_features, n_targets, n_encoded

    @property
    def n_pooled(self) -> int:
        """Width of what ``pool`` gives."""
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
            ``(n, n_features)``, the embedding of every spot's tile.
        subtiles
            ``(n, s, n_features)``; given exactly if the context has ``subspot``.
        neighbors
            ``(n, k, n_features)``; given exactly if the context has ``neighbors``.
        neighbor_mask
            ``(n, k)`` bool, True for a neighbour and False for padding, which takes no part.
            A spot without neighbours gets zeros in their place. Without a mask all rows take
            part.

        Returns
        -------
        Tensor
            ``(n, n_targets)``.

        Raises
        ------
        ValueError
            If an input is missing, not used by the context, or of the wrong shape.
        """
        self._check_given(subtiles, neighbors, neighbor_mask)
        check_shape("center", center, (None, self.n_features))
        n = len(center)
        center_h = self.encode(center)
        neighbors_h = None
        if neighbors is not None:
            check_shape("neighbors", neighbors, (n, None, self.n_features))
            neighbors_h = self._encode_sets(neighbors)
        return self.decode(center_h, self._encode_subtiles(subtiles, n), neighbors_h, neighbor_mask)

    def forward_gathered(
        self,
        tiles: Tensor,
        *,
        center: Tensor,
        subtiles: Tensor | None = None,
        neighbors: Tensor | None = None,
        neighbor_mask: Tensor | None = None,
    ) -> Tensor:
        """Predict as `forward` does, with phi run once for every distinct tile of the batch.

        In evaluation the two agree. In training they differ in the random numbers only: a tile
        has one dropout mask, however many spots it is a neighbour of.

        Parameters
        ----------
        tiles
            ``(m, n_features)``, embeddings of the distinct tiles: spots and their neighbours.
        center
            ``(n,)`` int64, for every spot its row of ``tiles``.
        subtiles
            ``(n, s, n_features)``, as in `forward`; they belong to one spot each.
        neighbors
            ``(n, k)`` int64, for every spot its neighbours' rows of ``tiles``.
        neighbor_mask
            ``(n, k)`` bool, as in `forward`. Under False ``neighbors`` may hold any number.

        Returns
        -------
        Tensor
            ``(n, n_targets)``.

        Raises
        ------
        ValueError
            If an input is missing, not used by the context, or of the wrong shape, or an
            index is outside ``tiles``.
        """
        self._check_given(subtiles, neighbors, neighbor_mask)
        check_shape("tiles", tiles, (None, self.n_features))
        check_shape("center", center, (None,))
        n = len(center)
        check_index("center", center, len(tiles))
        if neighbors is not None:
            check_shape("neighbors", neighbors, (n, None))
            if neighbor_mask is not None:
                check_mask(neighbor_mask, tuple(neighbors.shape))
                neighbors = neighbors.masked_fill(~neighbor_mask, 0)
            check_index("neighbors", neighbors, len(tiles))
        tiles_h = self.encode(tiles)
        # `embedding` rather than indexing: its backward pass is parallel, and deterministic.
        return self.decode(
            F.embedding(center, tiles_h),
            self._encode_subtiles(subtiles, n),
            None if neighbors is None else F.embedding(neighbors, tiles_h),
            neighbor_mask,
        )

    def encode(self, tiles: Tensor) -> Tensor:
        """Map every tile: ``(m, n_features)`` to ``(m, n_encoded)``.

        Raises
        ------
        ValueError
            If ``tiles`` has another shape, or another type than the weights.
        """
        check_shape("tiles", tiles, (None, self.n_features))
        weight = next(self.parameters(), None)
        if weight is not None:
            check_dtype(tiles, weight.dtype)
        return self._encode(tiles)

    def decode(
        self,
        center_h: Tensor,
        subtiles_h: Tensor | None = None,
        neighbors_h: Tensor | None = None,
        neighbor_mask: Tensor | None = None,
    ) -> Tensor:
        """Pool what ``encode`` gave, and predict the targets: ``(n, n_targets)``.

        Parameters and errors as in ``pool``.
        """
        return self.head(self.pool(center_h, subtiles_h, neighbors_h, neighbor_mask))

    def pool(
        self,
        center_h: Tensor,
        subtiles_h: Tensor | None = None,
        neighbors_h: Tensor | None = None,
        neighbor_mask: Tensor | None = None,
    ) -> Tensor:
        """Reduce sub-tiles and neighbours, and concatenate: ``(n, n_pooled)``.

        Parameters
        ----------
        center_h, subtiles_h, neighbors_h
            ``(n, n_encoded)``, ``(n, s, n_encoded)``, ``(n, k, n_encoded)``.
        neighbor_mask
            ``(n, k)`` bool, as in ``forward``.

        Raises
        ------
        ValueError
            If an input is missing, not used by the context, or of the wrong shape.
        """
        self._check_given(subtiles_h, neighbors_h, neighbor_mask)
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
            parts.append(aggregate(neighbors_h, neighbor_mask, self.aggregation))
        return torch.cat(parts, dim=1)

    def head(self, pooled: Tensor) -> Tensor:
        """Predict from ``pool``'s result: ``(n, n_pooled)`` to ``(n, n_targets)``."""
        raise NotImplementedError

    def member_heads(self, pooled: Tensor) -> Tensor | None:
        """What each member of an ensemble predicts, ``(members, n, n_targets)``; else None."""
        return None

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """What ``head`` and ``member_heads`` give."""
        return self.head(pooled), self.member_heads(pooled)

    def _encode(self, tiles: Tensor) -> Tensor:
        raise NotImplementedError

    def _check_given(
        self, subtiles: Tensor | None, neighbors: Tensor | None, neighbor_mask: Tensor | None
    ) -> None:
        uses = self.uses_subtiles, self.uses_neighbors
        check_given(self.context, uses, subtiles, neighbors, neighbor_mask)

    def _encode_sets(self, sets: Tensor) -> Tensor:
        return self.encode(sets.flatten(0, 1)).unflatten(0, sets.shape[:2])

    def _encode_subtiles(self, subtiles: Tensor | None, n: int) -> Tensor | None:
        if subtiles is None:
            return None
        check_shape("subtiles", subtiles, (n, None, self.n_features))
        return self._encode_sets(subtiles)
