"""A loaded encoder, which resizes and normalises tiles and embeds them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Tiles that pass through a network at once on a CPU. ResNet-50 takes 30 % longer per tile, and
#: 0.5 GB more memory, with 64.
_CPU_BATCH = 16
#: Side of the tiles of a dry run, for encoders that accept any size.
_DRY_RUN_PX = 224


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen network or function from tiles to embeddings (:func:`stpredict.encoders.load`).

    Attributes
    ----------
    name
        Name of the slot ``obsm["X_<name>"]``.
    function
        Function from float32 tiles ``(b, 3, h, w)`` to ``(b, dimension)``.
    input_px, resize_px, min_px, mean, std, autocast, takes_uint8
        As in :class:`EncoderRecord`.
    known_dimension
        Expected `dimension`, which every output is checked against; ``None`` if unknown.
    identity
        Text hashed in `weights_hash` for functions without parameters.
    is_custom
        Whether it is a module or function of the user, whose `response` is recorded.
    device
        Device of the computation and of the embeddings.

    Examples
    --------
    >>> import torch
    >>> from stpredict import encoders
    >>> encoder = encoders.load(lambda tiles: tiles.mean((-2, -1)), name="mean_colour")
    >>> encoder(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
    tensor([[1., 1., 1.]])
    """

    name: str
    function: Callable[[Tensor], Tensor]
    input_px: int | None = None
    resize_px: int | None = None
    min_px: int = 1
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    known_dimension: int | None = None
    identity: str = ""
    autocast: bool = False
    takes_uint8: bool = False
    is_custom: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def dimension(self) -> int:
        """Length of an embedding, from a dry run on two tiles if it is not known."""
        if self.known_dimension is not None:
            return self.known_dimension
        side = self.input_px or _DRY_RUN_PX
        seeded = torch.Generator().manual_seed(0)
        tiles = torch.randint(0, 256, (2, 3, side, side), generator=seeded, dtype=torch.uint8)
        return int(self(tiles).shape[1])

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of parameters and buffers; without parameters also of the identity."""
        module = self.function if isinstance(self.function, nn.Module) else nn.Identity()
        has_parameters = next(module.parameters(), None) is not None
        state = module.state_dict()
        digest = hashlib.sha256(b"" if has_parameters else self.identity.encode())
        for key in sorted(state):  # independent of the order of registration
            tensor = state[key].detach().cpu().contiguous()
            digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @cached_property
    def response(self) -> tuple[float, float, float]:
        """Norm and two projections of the embedding of a fixed tile.

        They change with the body of a function, which `weights_hash` does not describe.
        """
        ramp = torch.arange(self.input_px or _DRY_RUN_PX)
        y, x = torch.meshgrid(ramp, ramp, indexing="ij")
        # squares, so that a mean and a median differ
        tile = torch.stack([y, x, x * y]).remainder(256).square().div(255)
        embedding = self(tile[None].to(torch.uint8))[0].cpu().double()
        angle = torch.arange(len(embedding), dtype=torch.float64)
        directions = [
            functional.normalize(wave(angle + 1), dim=0) for wave in (torch.cos, torch.sin)
        ]
        first, second = (float(embedding @ direction) for direction in directions)
        return float(embedding.norm()), first, second

    def to(self, device: str | torch.device) -> Encoder:
        """Copy of the encoder on another device; its module is moved in place."""
        moved = copy.copy(self)  # keeps the cached hash and dimension
        object.__setattr__(moved, "device", torch.device(device))
        if isinstance(self.function, nn.Module):
            self.function.to(moved.device)
        return moved

    @torch.inference_mode()
    def __call__(self, tiles: Tensor) -> Tensor:
        """Embed uint8 RGB tiles ``(b, 3, h, w)``: finite float32 ``(b, dimension)``, on ``device``.

        Tiles are resized, and cropped if the encoder has a ``resize_px``. TypeError or ValueError
        if tiles are not uint8 RGB, or embeddings have another shape or are not finite.
        """
        _check_tiles(tiles)
        if len(tiles) == 0:
            return torch.zeros(0, self.dimension, device=self.device)
        pieces = tiles.split(_CPU_BATCH) if self.device.type == "cpu" else (tiles,)
        return torch.cat([self._embed(piece) for piece in pieces])

    def _embed(self, tiles: Tensor) -> Tensor:
        prepared = self._prepare(tiles)
        if isinstance(self.function, nn.Module):
            self.function.eval()
        # not enabled=False, which would switch off the caller's own autocast
        use_autocast = self.autocast and self.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16) if use_autocast else nullcontext():
            embedding = self.function(prepared)
        self._check_output(embedding, len(tiles))
        return embedding.float()

    def _prepare(self, tiles: Tensor) -> Tensor:
        tiles = tiles.to(self.device, non_blocking=True)
        if self.takes_uint8:
            return tiles
        x = tiles.float().div_(255)
        side = self.resize_px or self.input_px
        if side is not None and x.shape[-2:] != (side, side):
            # antialiased, as PIL resizes in the pipelines of published encoders
            x = functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        if self.resize_px is not None and self.input_px is not None:
            # rounded as in torchvision's CenterCrop
            start = round((self.resize_px - self.input_px) / 2)
            inner = slice(start, start + self.input_px)
            x = x[..., inner, inner]
        if self.mean is not None and self.std is not None:
            mean, std = (torch.tensor(v, device=x.device) for v in (self.mean, self.std))
            x = x.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))
        return x

    def _check_output(self, embedding: object, n: int) -> None:
        if not isinstance(embedding, Tensor) or embedding.ndim != 2 or len(embedding) != n:
            kind = type(embedding).__name__
            if isinstance(embedding, Tensor):
                kind = f"a tensor {tuple(embedding.shape)}"
            raise ValueError(
                f"Encoder '{self.name}' returned {kind} for {n} tiles instead of a tensor ({n}, "
                "dimension). Wrap it so that it pools feature maps or returns a single output."
            )
        width, expected = embedding.shape[1], self.known_dimension or embedding.shape[1]
        if width != expected:
            counts = f"{width} features per tile; {expected} were expected"
            raise ValueError(f"Encoder '{self.name}' returned {counts}")
        n_bad = int((~torch.isfinite(embedding)).any(1).sum())
        if n_bad:
            bad = f"NaN or infinity for {n_bad} of {n} tiles"
            raise ValueError(f"Encoder '{self.name}' returned {bad}")


def _check_tiles(tiles: object) -> None:
    if not isinstance(tiles, Tensor) or tiles.dtype != torch.uint8:
        kind = getattr(tiles, "dtype", type(tiles).__name__)
        raise TypeError(f"Tiles must be a uint8 tensor with values from 0 to 255, not {kind}.")
    if tiles.ndim != 4 or tiles.shape[1] != 3:
        raise ValueError(f"Tiles must be (b, 3, h, w), RGB, not {tuple(tiles.shape)}.")
