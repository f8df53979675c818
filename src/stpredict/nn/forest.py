"""A forest of regression trees as a torch module, saved like any other network."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from stpredict.nn.linear import UnencodedSets

#: Largest number of values in a (trees, rows, targets) transient.
_CHUNK = 1 << 24


class ForestSets(UnencodedSets):
    """Trees over the embeddings of a spot, and the means of its sub-tiles and neighbours.

    One table holds the nodes of all trees. It is filled by `grow` or ``load_state_dict``, which
    takes any number of nodes and checks them.

    Parameters
    ----------
    n_features, n_targets
        Width of an embedding, and number of targets.
    context
        Inputs of the network, as in `DeepSets`.

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
    >>> forest(torch.tensor([[9.0, 0.7]]))
    tensor([[4.]])
    """

    output_axes: ClassVar = {"value": 1}

    # the table of nodes, see `grow`
    feature: Tensor
    threshold: Tensor
    branches: Tensor
    value: Tensor
    roots: Tensor

    def _build(self) -> None:
        self.register_buffer("feature", torch.empty(0, dtype=torch.int64))
        # float32, since Apple GPUs have no doubles; saved as scikit-learn's doubles
        self.register_buffer("threshold", torch.empty(0))
        self.register_buffer("branches", torch.empty((0, 2), dtype=torch.int64))
        self.register_buffer("value", torch.empty((0, self.n_targets)))
        self.register_buffer("roots", torch.empty(0, dtype=torch.int64))
        self.register_load_state_dict_pre_hook(_resize_buffers)
        self.register_state_dict_post_hook(_save_doubles)

    def grow(
        self, *, feature: Tensor, threshold: Tensor, branches: Tensor, value: Tensor, roots: Tensor
    ) -> None:
        """Fill the table of nodes.

        Parameters
        ----------
        feature
            ``(n_nodes,)`` int64, column of the output of ``pool`` to split on; -1 for a leaf.
        threshold
            ``(n_nodes,)`` float64, largest value that goes to the first child.
        branches
            ``(n_nodes, 2)`` int64, children, further down the table; -1 for a leaf.
        value
            ``(n_nodes, n_targets)`` float32, predictions of the leaves.
        roots
            ``(n_trees,)`` int64, first node of each tree.

        Raises
        ------
        ValueError
            If the sizes disagree, or a child or a feature does not exist.
        """
        nodes = {"feature": feature, "threshold": threshold, "branches": branches, "value": value}
        self.load_state_dict({**nodes, "roots": roots})

    def head(self, pooled: Tensor) -> Tensor:
        """Mean over the trees: ``(n, n_pooled)`` to ``(n, n_targets)``."""
        # bounds the (trees, rows, targets) transient
        step = max(1, _CHUNK // (max(1, len(self.roots)) * self.n_targets))
        parts = [self.member_heads(part).mean(0) for part in pooled.split(step)]
        return torch.cat(parts) if parts else pooled.new_empty(0, self.n_targets)

    def member_heads(self, pooled: Tensor) -> Tensor:
        """Prediction of each tree, ``(n_trees, n, n_targets)``."""
        return self.value[self._leaves(pooled)]

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of ``head`` and ``member_heads`` from one pass through the trees."""
        members = self.member_heads(pooled)
        return members.mean(0), members

    def _leaves(self, pooled: Tensor) -> Tensor:
        """Node in which each row ends, ``(n_trees, n)``."""
        if not len(self.roots):
            raise ValueError("The forest has no trees: fill it with grow() or load_state_dict().")
        node = self.roots.unsqueeze(1).repeat(1, len(pooled))
        row = torch.arange(len(pooled), device=pooled.device).expand_as(node)
        # one level of all trees per iteration; rows in a leaf stay there
        while True:
            feature = self.feature[node]
            is_inner = feature >= 0
            if not is_inner.any():
                return node
            right = pooled[row, feature.clamp(min=0)].float() > self.threshold[node]
            node = torch.where(is_inner, self.branches[node, right.long()], node)


def _resize_buffers(forest: ForestSets, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Check the nodes and trees about to be loaded, and resize the buffers for them."""
    names = ("feature", "threshold", "branches", "value", "roots")
    if any(prefix + name not in state for name in names):
        return  # torch reports the missing names
    feature, threshold, branches, value, roots = (state[prefix + name] for name in names)
    n_nodes = len(feature)
    shapes = (threshold.shape, branches.shape, value.shape)
    if shapes != ((n_nodes,), (n_nodes, 2), (n_nodes, forest.n_targets)):
        raise ValueError(f"{n_nodes} nodes have thresholds, branches, values of shapes {shapes}.")
    is_inner = feature >= 0
    # children further down the table cannot form a cycle, in which prediction would never end
    is_further_down = branches[is_inner] > torch.arange(n_nodes)[is_inner].unsqueeze(1)
    nodes_exist = not is_inner.any() or (
        is_further_down.all()
        and branches[is_inner].max() < n_nodes
        and feature.max() < forest.n_pooled
    )
    roots_exist = not len(roots) or (roots.min() >= 0 and roots.max() < n_nodes)
    if not (nodes_exist and roots_exist):
        raise ValueError("A node of the forest has a child, or splits on a feature, out of range.")
    state[prefix + "threshold"] = _rounded_down(threshold)
    for name in names:
        buffer = getattr(forest, name)
        setattr(forest, name, buffer.new_empty(state[prefix + name].shape))


def _save_doubles(forest: ForestSets, state: dict[str, Any], prefix: str, _: Any) -> None:
    state[prefix + "threshold"] = state[prefix + "threshold"].to(torch.float64)


def _rounded_down(threshold: Tensor) -> Tensor:
    """Largest float32 that is not above each threshold: no float32 lies between the two."""
    rounded = threshold.float()
    lower = torch.nextafter(rounded, rounded.new_tensor(-torch.inf))
    return torch.where(rounded.to(threshold.dtype) > threshold, lower, rounded)
