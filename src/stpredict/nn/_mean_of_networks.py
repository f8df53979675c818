"""The mean of several networks over sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from stpredict.nn._sets import SetNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def networks_of(network: nn.Module) -> list[nn.Module]:
    """The networks of a mean, or the network itself."""
    return list(network) if isinstance(network, MeanOfNetworks) else [network]


class MeanOfNetworks(SetNetwork):
    """The mean of networks over sets that have the same inputs and targets.

    Networks that were trained from different initial weights err in different ways, so that their
    mean is more accurate than each, and their spread is a measure of uncertainty [1]_.

    Parameters
    ----------
    networks
        Networks of one class with the same sizes, context and aggregation.

    Raises
    ------
    ValueError
        If there are no networks, or their sizes, contexts or aggregations differ.

    References
    ----------
    .. [1] Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive uncertainty
       estimation using deep ensembles, NeurIPS 2017.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import DeepSets, MeanOfNetworks
    >>> networks = [DeepSets(84, 250, context="spot", n_hidden=32) for _ in range(3)]
    >>> MeanOfNetworks(networks).eval()(torch.rand(5, 84)).shape
    torch.Size([5, 250])
    """

    def __init__(self, networks: Sequence[SetNetwork]) -> None:
        described = {
            (type(n), n.n_features, n.n_targets, n.n_encoded, n.context, n.aggregation)
            for n in networks
        }
        if len(described) != 1:
            raise ValueError(
                f"networks must be of one class and have the same sizes, context and aggregation; "
                f"found {len(described)} kinds among {len(networks)} networks"
            )
        first = networks[0]
        # those of the class of the networks
        self.contexts = first.contexts  # type: ignore[misc]
        super().__init__(
            first.n_features,
            first.n_targets,
            n_encoded=len(networks) * first.n_encoded,
            context=first.context,
            aggregation=first.aggregation,
        )
        self.output_axes = {  # type: ignore[misc]
            f"networks.{number}.{name}": axis
            for number in range(len(networks))
            for name, axis in first.output_axes.items()
        }
        self.networks = nn.ModuleList(networks)

    def __iter__(self) -> Iterator[SetNetwork]:
        return cast("Iterator[SetNetwork]", iter(self.networks))

    def head(self, pooled: Tensor) -> Tensor:
        """Mean of the networks: ``(n, n_pooled)`` to ``(n, n_targets)``."""
        return self.member_heads(pooled).mean(0)

    def member_heads(self, pooled: Tensor) -> Tensor:
        """Prediction of each network, ``(networks, n, n_targets)``."""
        # pooling treats each feature alone, so each network finds its part next to the others'
        parts = pooled.unflatten(1, (-1, len(self.networks), self.n_encoded // len(self.networks)))
        return torch.stack(
            [network.head(parts[:, :, number].flatten(1)) for number, network in enumerate(self)]
        )

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of ``head`` and ``member_heads``, computed once."""
        members = self.member_heads(pooled)
        return members.mean(0), members

    def _encode(self, tiles: Tensor) -> Tensor:
        return torch.cat([network.encode(tiles) for network in self], dim=1)
