"""Several encoders as one, whose embeddings are next to each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stpredict.encoders._encoder import Encoder
from stpredict.encoders._record import EncoderRecord

#: Between the names of joined encoders.
AND = "+"


class Joined(nn.Module):
    """Encoders that see the same tiles, each resized and normalised as it requires."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        super().__init__()
        self.encoders = tuple(encoders)
        functions = [encoder.function for encoder in encoders]
        # registered, so that they move between devices with the module
        self.networks = nn.ModuleList(each for each in functions if isinstance(each, nn.Module))
        self.widths = tuple(encoder.dimension for encoder in encoders)
        self.dimension = sum(self.widths)
        # the hash of an encoder without parameters describes its version
        hashes = bytearray.fromhex("".join(encoder.weights_hash for encoder in encoders))
        self.register_buffer("hashes", torch.frombuffer(hashes, dtype=torch.uint8))

    def forward(self, tiles: Tensor) -> Tensor:
        """Embeddings ``(b, dimension)`` of uint8 tiles ``(b, 3, h, w)``, encoder by encoder."""
        parts = [encoder.to(tiles.device)(tiles) for encoder in self.encoders]
        return torch.cat(parts, dim=1)


def joined_record(name: str, parts: Sequence[EncoderRecord]) -> EncoderRecord:
    """Record of joined encoders."""
    repeated = sorted({part.name for part in parts if parts.count(part) > 1})
    if repeated:
        raise ValueError(f"'{name}' joins {', '.join(repeated)} with itself: name it once")
    dimensions = [part.dimension for part in parts]
    return EncoderRecord(
        name,
        Joined,
        dimension=None if None in dimensions else sum(filter(None, dimensions)),
        min_px=max(part.min_px for part in parts),
        licence=_each(part.licence for part in parts),
        source=_each(part.source for part in parts),
        paper=_each(part.paper for part in parts),
        gated=any(part.gated for part in parts),
        autocast=False,  # each decides for itself
        package=_each(part.package for part in parts),
        takes_uint8=True,
        parts=tuple(parts),
    )


def _each(values: Iterable[str]) -> str:
    """Different values in order, in one text."""
    return "; ".join(dict.fromkeys(value for value in values if value))
