"""One encoder on several GPUs, which share each batch of tiles."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from stpredict.encoders._encoder import Encoder


@dataclass(frozen=True, eq=False)
class Replicas(Encoder):
    """An encoder with a copy of its module on each device; embeddings are on the CPU."""

    replicas: tuple[Encoder, ...] = ()

    def __call__(self, tiles: Tensor) -> Tensor:
        """Embed a part of the tiles on each device, at the same time."""
        parts = tiles.chunk(len(self.replicas))
        with ThreadPoolExecutor(len(self.replicas)) as pool:
            embeddings = pool.map(lambda one, part: one(part).cpu(), self.replicas, parts)
            return torch.cat(list(embeddings))


def replicate(encoder: Encoder, devices: Sequence[torch.device]) -> Encoder:
    """Copy an encoder to all devices; one, and a function of the user, stays on one device."""
    encoder = encoder.to(devices[0])
    if len(devices) == 1 or not isinstance(encoder.function, nn.Module):
        return encoder
    replicas = [encoder]
    for device in devices[1:]:
        replica = copy.copy(encoder)
        object.__setattr__(replica, "function", copy.deepcopy(encoder.function))
        replicas.append(replica.to(device))
    values = {field.name: getattr(encoder, field.name) for field in fields(encoder)}
    return Replicas(**values, replicas=tuple(replicas))
