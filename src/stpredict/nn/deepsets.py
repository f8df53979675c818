"""DeepSpot's network: a set of embeddings per spot in, expression out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpredict.nn._check import (
    check_dtype,
    check_given,
    check_index,
    check_mask,
    check_shape,
)
from stpredict.nn._ensemble import MeanEnsemble, MedianEnsemble
from stpredict.nn._median import MAX_MEMBERS

#: For each context whether sub-tiles and whether neighbours are taken in.
CONTEXTS: dict[str, tuple[bool, bool]] = {
    "spot": (False, False),
    "spot_subspot": (True, False),
    "spot_neighbors": (False, True),
    "spot_subspot_neighbors": (True, True),
}


class DeepSets(nn.Module):
    """Deep sets over the embeddings of a spot, its sub-tiles and its neighbours.

    phi (linear, dropout, ReLU; the median of an ensemble) maps every embedding; sub-tiles are
    summed, neighbours reduced to their maximum; rho (dropout, ReLU, linear, dropout; the mean of
    an ensemble) maps the concatenation ``[spot, sub-tiles, neighbours]`` to the targets.
    This is the network of DeepSpot (Nonchev et al., "DeepSpot: Leveraging Spatial Context for
    Enhanced Spatial Transcriptomics Prediction from H&E Images", medRxiv 2025,
    doi:10.1101/2025.02.09.25321567).

    Parameters
    ----------
    n_features
        Width of an embedding.
    n_targets
        Number of targets, usually genes.
    context
        What is looked at beside the spot: ``"spot"``, ``"spot_subspot"``, ``"spot_neighbors"``
        or ``"spot_subspot_neighbors"``.
    n_hidden
        Width of phi's output.
    n_phi, n_rho
        Members of the two ensembles, 1 to 255.
    dropout
        Probability of dropout in phi and at the input of rho, in [0, 1).
    output_dropout
        Probability of dropout at the output of every member of rho, in [0, 1).

    Raises
    ------
    ValueError
        If the context is unknown or a size or probability is out of its range.

    References
    ----------
    Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial transcriptomics
    prediction from H&E images, medRxiv 2025.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import DeepSets
    >>> network = DeepSets(84, 250, context="spot_neighbors", n_hidden=32).eval()
    >>> center, neighbors = torch.rand(5, 84), torch.rand(5, 6, 84)
    >>> is_neighbor = torch.tensor([6, 6, 4, 1, 0])[:, None] > torch.arange(6)
    >>> network(center, neighbors=neighbors, neighbor_mask=is_neighbor).shape
    torch.Size([5, 250])
    """

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: str = "spot_subspot_neighbors",
        n_hidden: int = 512,
        n_phi: int = 10,
        n_rho: int = 10,
        dropout: float = 0.3,
        output_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if context not in CONTEXTS:
            msg = f"context={context!r} is unknown; choose one of {', '.join(CONTEXTS)}."
            raise ValueError(msg)
        sizes = {"n_features": n_features, "n_targets": n_targets, "n_hidden": n_hidden}
        for name, value in (sizes | {"n_phi": n_phi, "n_rho": n_rho}).items():
            highest = MAX_MEMBERS if name in ("n_phi", "n_rho") else None
            if value < 1 or (highest and value > highest):
                wanted = f"1 to {highest}" if highest else "at least 1"
                msg = f"{name}={value} must be {wanted}."
                raise ValueError(msg)
        for name, p in {"dropout": dropout, "output_dropout": output_dropout}.items():
            if not 0 <= p < 1:
                msg = f"{name}={p} must be at least 0 and below 1."
                raise ValueError(msg)
        self.context = context
        self.uses_subtiles, self.uses_neighbors = CONTEXTS[context]
        self.n_features, self.n_targets, self.n_hidden = n_features, n_targets, n_hidden
        parts = 1 + self.uses_subtiles + self.uses_neighbors
        self.phi = MedianEnsemble(n_features, n_hidden, n_members=n_phi, dropout=dropout)
        self.rho = MeanEnsemble(
            parts * n_hidden,
            n_targets,
            n_members=n_rho,
            dropout=dropout,
            output_dropout=output_dropout,
        )

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
        check_given(self.context, CONTEXTS[self.context], subtiles, neighbors, neighbor_mask)
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
        check_given(self.context, CONTEXTS[self.context], subtiles, neighbors, neighbor_mask)
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
        """Run phi: ``(m, n_features)`` to ``(m, n_hidden)``.

        Raises
        ------
        ValueError
            If ``tiles`` has another shape, or another type than the weights.
        """
        check_shape("tiles", tiles, (None, self.n_features))
        check_dtype(tiles, self.phi.weight.dtype)
        encoded: Tensor = self.phi(tiles)
        return encoded

    def decode(
        self,
        center_h: Tensor,
        subtiles_h: Tensor | None = None,
        neighbors_h: Tensor | None = None,
        neighbor_mask: Tensor | None = None,
    ) -> Tensor:
        """Reduce what `encode` gave of sub-tiles and neighbours, and run rho.

        Parameters
        ----------
        center_h, subtiles_h, neighbors_h
            ``(n, n_hidden)``, ``(n, s, n_hidden)``, ``(n, k, n_hidden)``.
        neighbor_mask
            ``(n, k)`` bool, as in `forward`.

        Returns
        -------
        Tensor
            ``(n, n_targets)``.

        Raises
        ------
        ValueError
            If an input is missing, not used by the context, or of the wrong shape.
        """
        check_given(self.context, CONTEXTS[self.context], subtiles_h, neighbors_h, neighbor_mask)
        check_shape("center_h", center_h, (None, self.n_hidden))
        n = len(center_h)
        parts = [center_h]
        if subtiles_h is not None:
            check_shape("subtiles_h", subtiles_h, (n, None, self.n_hidden))
            parts.append(subtiles_h.sum(1))
        if neighbors_h is not None:
            check_shape("neighbors_h", neighbors_h, (n, None, self.n_hidden))
            if neighbor_mask is not None:
                check_mask(neighbor_mask, tuple(neighbors_h.shape[:2]))
            parts.append(_max_over_neighbors(neighbors_h, neighbor_mask))
        decoded: Tensor = self.rho(torch.cat(parts, dim=1))
        return decoded

    def _encode_sets(self, sets: Tensor) -> Tensor:
        return self.encode(sets.flatten(0, 1)).unflatten(0, sets.shape[:2])

    def _encode_subtiles(self, subtiles: Tensor | None, n: int) -> Tensor | None:
        if subtiles is None:
            return None
        check_shape("subtiles", subtiles, (n, None, self.n_features))
        return self._encode_sets(subtiles)


def _max_over_neighbors(neighbors_h: Tensor, mask: Tensor | None) -> Tensor:
    """``(n, k, h)`` to ``(n, h)``; zeros where no neighbour is."""
    n, k, n_hidden = neighbors_h.shape
    if k == 0:
        return neighbors_h.new_zeros(n, n_hidden)
    if mask is None:
        return neighbors_h.max(1).values
    highest = neighbors_h.masked_fill(~mask.unsqueeze(-1), -torch.inf).max(1).values
    return highest.masked_fill(~mask.any(1, keepdim=True), 0)
