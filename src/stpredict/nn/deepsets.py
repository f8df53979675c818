"""The networks of DeepSpot and DeepCell: deep sets over embeddings."""

from __future__ import annotations

from torch import Tensor

from stpredict.nn._aggregate import Aggregation
from stpredict.nn._ensemble import MeanEnsemble, MedianEnsemble
from stpredict.nn._median import MAX_MEMBERS
from stpredict.nn._sets import SetNetwork

#: For each context whether sub-tiles and whether neighbours are taken in.
CONTEXTS: dict[str, tuple[bool, bool]] = {
    "spot": (False, False),
    "spot_subspot": (True, False),
    "spot_neighbors": (False, True),
    "spot_subspot_neighbors": (True, True),
}
CELL_CONTEXTS: dict[str, tuple[bool, bool]] = {
    "cell": (False, False),
    "cell_neighbors": (False, True),
}


class DeepSets(SetNetwork):
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
    aggregation
        How neighbours are reduced: ``"max"``, ``"mean"`` or ``"sum"``.

    Raises
    ------
    ValueError
        If the context or the aggregation is unknown or a size or probability is out of its range.

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

    contexts = CONTEXTS

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
        aggregation: Aggregation = "max",
    ) -> None:
        super().__init__(
            n_features,
            n_targets,
            n_encoded=n_hidden,
            context=context,
            contexts=self.contexts,
            aggregation=aggregation,
        )
        for name, value in {"n_hidden": n_hidden, "n_phi": n_phi, "n_rho": n_rho}.items():
            highest = None if name == "n_hidden" else MAX_MEMBERS
            if value < 1 or (highest and value > highest):
                wanted = f"1 to {highest}" if highest else "at least 1"
                msg = f"{name}={value} must be {wanted}."
                raise ValueError(msg)
        for name, p in {"dropout": dropout, "output_dropout": output_dropout}.items():
            if not 0 <= p < 1:
                msg = f"{name}={p} must be at least 0 and below 1."
                raise ValueError(msg)
        self.phi = MedianEnsemble(n_features, n_hidden, n_members=n_phi, dropout=dropout)
        self.rho = MeanEnsemble(
            self.n_pooled,
            n_targets,
            n_members=n_rho,
            dropout=dropout,
            output_dropout=output_dropout,
        )

    def head(self, pooled: Tensor) -> Tensor:
        """Run rho: ``(n, n_pooled)`` to ``(n, n_targets)``."""
        predicted: Tensor = self.rho(pooled)
        return predicted

    def member_heads(self, pooled: Tensor) -> Tensor:
        """What each network of rho's ensemble predicts, ``(n_rho, n, n_targets)``."""
        return self.rho.members(pooled)

    def _encode(self, tiles: Tensor) -> Tensor:
        encoded: Tensor = self.phi(tiles)
        return encoded


class DeepCell(DeepSets):
    """Deep sets over the embeddings of a cell and its neighbours.

    The network of DeepCell, which is DeepSpot's for single cells: without sub-tiles, wider, with
    less dropout, and a choice of how neighbours are reduced.

    Parameters
    ----------
    n_features, n_targets, n_hidden, n_phi, n_rho, dropout, output_dropout, aggregation
        As of `DeepSets`.
    context
        What is looked at beside the cell: nothing (``"cell"``) or ``"cell_neighbors"``.

    Raises
    ------
    ValueError
        If the context or the aggregation is unknown or a size or probability is out of its range.

    References
    ----------
    Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial transcriptomics
    prediction from H&E images, medRxiv 2025.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import DeepCell
    >>> network = DeepCell(84, 338, context="cell", n_hidden=32).eval()
    >>> network(torch.rand(5, 84)).shape
    torch.Size([5, 338])
    """

    contexts = CELL_CONTEXTS

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        *,
        context: str = "cell_neighbors",
        n_hidden: int = 1024,
        n_phi: int = 10,
        n_rho: int = 10,
        dropout: float = 0.2,
        output_dropout: float = 0.1,
        aggregation: Aggregation = "max",
    ) -> None:
        super().__init__(
            n_features,
            n_targets,
            context=context,
            n_hidden=n_hidden,
            n_phi=n_phi,
            n_rho=n_rho,
            dropout=dropout,
            output_dropout=output_dropout,
            aggregation=aggregation,
        )
