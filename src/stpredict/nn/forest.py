"""A forest of regression trees as a torch module: tensors, so that it is saved as any network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stpredict.nn._sets import SetNetwork
from stpredict.nn.deepsets import CONTEXTS

#: Values of a (trees, rows, targets) transient.
_CHUNK = 1 << 24


class ForestSets(SetNetwork):
    """Trees over the embeddings of a spot, and the means of its sub-tiles and neighbours.

    The nodes of all trees stand in one table. It is empty until it is filled by `grow` or by
    ``load_state_dict``, which takes any number of nodes and checks them.

    Parameters
    ----------
    n_features
        Width of an embedding.
    n_targets
        Number of targets.
    context
        What is looked at beside the spot, as of `DeepSets`.

    Raises
    ------
    ValueError
        If the context is unknown or a size is below 1.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import ForestSets
    >>> forest = ForestSets(2, 1, context="spot")
    >>> forest.grow(
    ...     feature=torch.tensor([1, -1, -1]),
    ...     threshold=torch.tensor([0.5, 0, 0]).double(),
    ...     branches=torch.tensor([[1, 2], [-1, -1], [-1, -1]]),
    ...     value=torch.tensor([[0.0], [3.0], [4.0]]),
    ...     roots=torch.tensor([0]),
    ... )
    >>> forest(torch.tensor([[9.0, 0.2], [9.0, 0.7]]))
    tensor([[3.],
            [4.]])
    """

    feature: Tensor
    threshold: Tensor
    branches: Tensor
    value: Tensor
    roots: Tensor

    def __init__(self, n_features: int, n_targets: int, *, context: str = "spot") -> None:
        super().__init__(
            n_features,
            n_targets,
            n_encoded=n_features,
            context=context,
            contexts=CONTEXTS,
            aggregation="mean",
        )
        self.register_buffer("feature", torch.empty(0, dtype=torch.int64))
        self.register_buffer("threshold", torch.empty(0, dtype=torch.float64))
        self.register_buffer("branches", torch.empty((0, 2), dtype=torch.int64))
        self.register_buffer("value", torch.empty((0, n_targets)))
        self.register_buffer("roots", torch.empty(0, dtype=torch.int64))
        self.register_load_state_dict_pre_hook(_take_sizes)

    def grow(
        self, *, feature: Tensor, threshold: Tensor, branches: Tensor, value: Tensor, roots: Tensor
    ) -> None:
        """Fill the table of nodes.

        Parameters
        ----------
        feature
            ``(n_nodes,)`` int64, what a node looks at, a column of ``pool``'s result; -1 of a
            leaf.
        threshold
            ``(n_nodes,)`` float64: a value up to it goes to the first child.
        branches
            ``(n_nodes, 2)`` int64, nodes further down the table; -1 of a leaf.
        value
            ``(n_nodes, n_targets)`` float32, read of leaves.
        roots
            ``(n_trees,)`` int64.

        Raises
        ------
        ValueError
            If the sizes disagree, or a node leads nowhere.
        """
        nodes = {"feature": feature, "threshold": threshold, "branches": branches, "value": value}
        self.load_state_dict({**nodes, "roots": roots})

    def head(self, pooled: Tensor) -> Tensor:
        """Mean over the trees: ``(n, n_pooled)`` to ``(n, n_targets)``."""
        step = max(1, _CHUNK // (max(1, len(self.roots)) * self.n_targets))
        parts = [self.member_heads(part).mean(0) for part in pooled.split(step)]
        return torch.cat(parts) if parts else pooled.new_empty(0, self.n_targets)

    def member_heads(self, pooled: Tensor) -> Tensor:
        """What each tree predicts, ``(n_trees, n, n_targets)``."""
        return self.value[self._leaves(pooled)]

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What ``head`` and ``member_heads`` give, of one way through the trees."""
        members = self.member_heads(pooled)
        return members.mean(0), members

    def _leaves(self, pooled: Tensor) -> Tensor:
        """Node in which each row ends, ``(n_trees, n)``."""
        if not len(self.roots):
            msg = "The forest has no trees yet: fill it with grow() or load_state_dict()."
            raise ValueError(msg)
        node = self.roots.unsqueeze(1).repeat(1, len(pooled))
        row = torch.arange(len(pooled), device=pooled.device).expand_as(node)
        while True:
            feature = self.feature[node]
            inner = feature >= 0
            if not inner.any():
                return node
            right = pooled[row, feature.clamp(min=0)].double() > self.threshold[node]
            node = torch.where(inner, self.branches[node, right.long()], node)

    def _encode(self, tiles: Tensor) -> Tensor:
        return tiles


def _take_sizes(forest: ForestSets, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Make room for as many nodes and trees as are about to be loaded, after a look at them."""
    names = ("feature", "threshold", "branches", "value", "roots")
    if any(prefix + name not in state for name in names):
        return  # torch says which are missing
    feature, threshold, branches, value, roots = (state[prefix + name] for name in names)
    n_nodes = len(feature)
    shapes = (threshold.shape, branches.shape, value.shape)
    if shapes != ((n_nodes,), (n_nodes, 2), (n_nodes, forest.n_targets)):
        msg = f"{n_nodes} nodes have thresholds, branches and values of the shapes {shapes}."
        raise ValueError(msg)
    inner = feature >= 0
    further_down = branches[inner] > torch.arange(n_nodes)[inner].unsqueeze(1)
    fits = (
        not inner.any()
        or (
            further_down.all()
            and branches[inner].max() < n_nodes
            and feature.max() < forest.n_pooled
        )
    ) and (not len(roots) or (roots.min() >= 0 and roots.max() < n_nodes))
    if not fits:
        msg = "A node of the forest leads nowhere, or looks at a feature that is not there."
        raise ValueError(msg)
    for name in names:
        current = getattr(forest, name)
        setattr(forest, name, current.new_empty(state[prefix + name].shape))
