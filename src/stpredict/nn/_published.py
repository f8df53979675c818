"""Weights of the published networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_PUBLISHED = re.compile(r"(phi_spot|phi_cell|rho)\.(\d+)\.model\.\d+\.(weight|bias)")


def from_published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack the weights of a published DeepSpot or DeepCell network for `DeepSets`.

    Parameters
    ----------
    state
        Published weights and biases of each member, such as ``phi_spot.<i>.model.0.weight``.

    Returns
    -------
    dict
        ``phi.weight``, ``phi.bias``, ``rho.weight`` and ``rho.bias``, stacked by member.

    Raises
    ------
    ValueError
        If a name is foreign, or a member is missing or differs in shape from the others.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import DeepSets, from_published_state
    >>> state = {"phi_spot.0.model.0.weight": torch.rand(8, 4)}
    >>> state |= {"phi_spot.0.model.0.bias": torch.rand(8)}
    >>> state |= {"rho.0.model.2.weight": torch.rand(3, 8), "rho.0.model.2.bias": torch.rand(3)}
    >>> network = DeepSets(4, 3, context="spot", n_hidden=8, n_phi=1, n_rho=1)
    >>> network.load_state_dict(from_published_state(state))
    <All keys matched successfully>
    """
    tensors: dict[str, dict[int, Tensor]] = {}
    for name, value in state.items():
        match = _PUBLISHED.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is not a weight of a published DeepSpot network.")
        part, member, kind = match.groups()
        # phi_spot and phi_cell are both phi here
        tensors.setdefault(f"{part.split('_')[0]}.{kind}", {})[int(member)] = value
    stacked = {}
    for name in ("phi.weight", "phi.bias", "rho.weight", "rho.bias"):
        members = tensors.get(name, {})
        shapes = {tuple(value.shape) for value in members.values()}
        if not members or sorted(members) != list(range(len(members))) or len(shapes) != 1:
            raise ValueError(
                f"{name} needs members 0, 1, … of one shape, but the state has members "
                f"{sorted(members)} with shapes {sorted(shapes)}."
            )
        stacked[name] = torch.stack([members[i] for i in range(len(members))])
    return stacked
