"""The networks of DeepSpot and DeepCell: deep sets over embeddings."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from stpredict.nn._check import check_probabilities, check_sizes
from stpredict.nn._ensemble import MeanEnsemble, MedianEnsemble
from stpredict.nn._median import MAX_MEMBERS
from stpredict.nn._sets import SetNetwork

#: For each context, whether it uses sub-tiles and whether it uses neighbours.
CONTEXTS = {
    "spot": (False, False),
    "spot_subspot": (True, False),
    "spot_neighbors": (False, True),
    "spot_subspot_neighbors": (True, True),
}
CELL_CONTEXTS = {"cell": (False, False), "cell_neighbors": (False, True)}


class DeepSets(SetNetwork):
    """Deep sets over the embeddings of a spot, its sub-tiles and its neighbours.

    The network of DeepSpot [1]_: phi (linear, dropout, ReLU; the median of an ensemble) maps each
    embedding; sub-tiles are summed, neighbours reduced to their maximum; rho (dropout, ReLU,
    linear, dropout; the mean of an ensemble) maps ``[spot, sub-tiles, neighbours]`` to the targets.

    Parameters
    ----------
    n_features, n_targets
        Width of an embedding, and number of targets, usually genes.
    context
        Inputs of the network: the spot, its sub-tiles (``"subspot"``), its neighbours.
    n_hidden
        Width of the output of phi.
    n_phi, n_rho
        Number of members of the two ensembles, 1 to 255.
    dropout, output_dropout
        Dropout probability, in [0, 1): in phi and at the input of rho; at the output of rho.
    aggregation
        Reduction of neighbours.

    Raises
    ------
    ValueError
        If the context or the aggregation is unknown or a size or probability is out of its range.

    References
    ----------
    .. [1] Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial
       transcriptomics prediction from H&E images, medRxiv 2025, doi:10.1101/2025.02.09.25321567.

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

    contexts = CONTEXTS
    output_axes: ClassVar = {"rho.weight": 1, "rho.bias": 1}

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: Literal[
            "spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"
        ] = "spot_subspot_neighbors",
        n_hidden: int = 512,
        n_phi: int = 10,
        n_rho: int = 10,
        dropout: float = 0.3,
        output_dropout: float = 0.1,
        aggregation: Literal["max", "mean", "sum"] = "max",
    ) -> None:
        check_sizes(n_hidden=n_hidden)
        super().__init__(
            n_features, n_targets, n_encoded=n_hidden, context=context, aggregation=aggregation
        )
        for name, n_members in {"n_phi": n_phi, "n_rho": n_rho}.items():
            # the number of the winning member is stored in one byte
            if not 1 <= n_members <= MAX_MEMBERS:
                raise ValueError(f"{name}={n_members} must be 1 to {MAX_MEMBERS}.")
        dropouts = {"dropout": dropout, "output_dropout": output_dropout}
        check_probabilities(**dropouts)
        self.phi = MedianEnsemble(n_features, n_hidden, n_members=n_phi, dropout=dropout)
        self.rho = MeanEnsemble(self.n_pooled, n_targets, n_members=n_rho, **dropouts)

    def head(self, pooled: Tensor) -> Tensor:
        """Run rho: ``(n, n_pooled)`` to ``(n, n_targets)``."""
        return self.rho(pooled)

    def member_heads(self, pooled: Tensor) -> Tensor:
        """Prediction of each member of rho, ``(n_rho, n, n_targets)``."""
        return self.rho.members(pooled)

    def _encode(self, tiles: Tensor) -> Tensor:
        return self.phi(tiles)


class DeepCell(DeepSets):
    """Deep sets over the embeddings of a cell and its neighbours.

    The network of DeepCell is that of DeepSpot, see `DeepSets`, for single cells: without
    sub-tiles, wider, with less dropout, and with a choice of how neighbours are reduced.

    Parameters
    ----------
    n_features, n_targets, n_hidden, dropout
        Parameters of `DeepSets`.
    context
        Inputs of the network: the cell alone, or the cell and its neighbours.
    **options
        ``n_phi``, ``n_rho``, ``output_dropout`` and ``aggregation`` of `DeepSets`.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import DeepCell
    >>> DeepCell(84, 338, context="cell", n_hidden=32)(torch.rand(5, 84)).shape
    torch.Size([5, 338])
    """

    contexts = CELL_CONTEXTS

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: Literal["cell", "cell_neighbors"] = "cell_neighbors",
        n_hidden: int = 1024,
        dropout: float = 0.2,
        **options: Any,
    ) -> None:
        options |= {"context": context, "n_hidden": n_hidden, "dropout": dropout}
        super().__init__(n_features, n_targets, **options)
