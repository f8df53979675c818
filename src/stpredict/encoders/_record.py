"""An encoder: what is known of it, and the loaded thing that turns tiles into embeddings."""

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

from stpredict.encoders._weights import unchanged

_DRY_RUN_PX = 224


@dataclass(frozen=True)
class EncoderRecord:
    """One encoder, described by data.

    A record of your own can be given to :func:`stpredict.encoders.load` like a name.

    Attributes
    ----------
    name
        Also names the slot ``obsm["X_<name>"]``.
    build
        Gives the architecture with the weights it starts from, taking keyword changes to it.
        The module maps float32 ``(b, 3, h, w)`` to ``(b, dimension)``.
    dimension
        Length of an embedding; ``None`` where the module's own ``dimension``, or a dry run, tells.
    input_px
        Side in pixels that tiles are resized to; ``None`` where any size will do.
    mean, std
        Per channel, on [0, 1], subtracted and divided by; ``None`` to leave values in [0, 1].
    licence, source, paper
        Of the weights, as their own page states them; ``source`` is where to ask for access.
    gated
        Whether the hub gives the weights only to those who have accepted their terms.
    fetch
        Asks the hub for the published state dict; ``None`` for an encoder without weights.
    convert
        Brings a published state dict, from the hub or a file, to the names of the architecture.
    autocast
        Whether bfloat16 on a GPU leaves the embedding good enough.
    version
        Raised when an encoder without weights starts to compute something else.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.record("uni").dimension, encoders.record("uni").gated
    (1024, True)
    """

    name: str
    build: Callable[..., nn.Module]
    dimension: int | None = None
    input_px: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    licence: str = "unknown"
    source: str = "unknown"
    paper: str = ""
    gated: bool = False
    fetch: Callable[[], dict[str, Tensor]] | None = None
    convert: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] = unchanged
    autocast: bool = True
    version: str = "1"


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen network or function that turns tiles into embeddings.

    Made by :func:`stpredict.encoders.load`.

    Attributes
    ----------
    name
        Names the slot ``obsm["X_<name>"]``.
    function
        Float32 tiles ``(b, 3, h, w)``, on [0, 1] or normalised, to ``(b, dimension)``.
    input_px
        Side in pixels that tiles are resized to; ``None`` leaves them as they come.
    mean, std
        Normalisation per channel on [0, 1]; ``None`` for none.
    known_dimension
        ``dimension`` where it is known beforehand; every output is held to it.
    identity
        Stands in ``weights_hash`` for what parameters do not say.
    autocast
        Compute in bfloat16 on a CUDA device.
    device
        Where tiles are brought to and embeddings come out.

    Examples
    --------
    >>> import torch
    >>> from stpredict import encoders
    >>> def mean_colour(tiles):
    ...     return tiles.mean((-2, -1))
    >>> encoder = encoders.load(mean_colour)
    >>> encoder(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """

    name: str
    function: Callable[[Tensor], Tensor]
    input_px: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    known_dimension: int | None = None
    identity: str = ""
    autocast: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def dimension(self) -> int:
        """Length of an embedding, found by a dry run on two tiles where it is not known."""
        if self.known_dimension is not None:
            return self.known_dimension
        side = self.input_px or _DRY_RUN_PX
        seeded = torch.Generator().manual_seed(0)
        tiles = torch.randint(0, 256, (2, 3, side, side), generator=seeded, dtype=torch.uint8)
        return int(self(tiles).shape[1])

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of parameters and buffers by name, the same on any machine and device.

        Where there are no parameters, the identity of the function is hashed beside them.
        """
        state = self.function.state_dict() if isinstance(self.function, nn.Module) else {}
        learned = isinstance(self.function, nn.Module) and any(
            True for _ in self.function.parameters()
        )
        digest = hashlib.sha256(b"" if learned else self.identity.encode())
        for key in sorted(state):
            tensor = state[key].detach().cpu().contiguous()
            digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def to(self, device: str | torch.device) -> Encoder:
        """Move to a device; gives the encoder that computes there (a module is moved in place)."""
        moved = copy.copy(self)  # keeps a hash and a dimension already found
        object.__setattr__(moved, "device", torch.device(device))
        if isinstance(self.function, nn.Module):
            self.function.to(moved.device)
        return moved

    @torch.inference_mode()
    def __call__(self, tiles: Tensor) -> Tensor:
        """Embed tiles.

        Parameters
        ----------
        tiles
            uint8 ``(b, 3, h, w)``, RGB. Resized as a whole to ``input_px`` where their size
            differs: no margin is cropped away.

        Returns
        -------
        float32 ``(b, dimension)``, finite, on ``device``.

        Raises
        ------
        TypeError, ValueError
            For tiles of another type or shape; for an output of another shape, or with NaN or
            infinity in it.
        """
        _check_tiles(tiles)
        if len(tiles) == 0:
            return torch.zeros(0, self.dimension, device=self.device)
        prepared = self._prepare(tiles)
        if isinstance(self.function, nn.Module):
            self.function.eval()
        with (
            torch.autocast("cuda", torch.bfloat16)
            if self.autocast and self.device.type == "cuda"
            else nullcontext()
        ):
            embedding = self.function(prepared)
        self._check_output(embedding, len(tiles))
        return embedding.float()

    def _prepare(self, tiles: Tensor) -> Tensor:
        x = tiles.to(self.device, non_blocking=True).float().div_(255)
        side = self.input_px
        if side is not None and x.shape[-2:] != (side, side):
            x = functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        if self.mean is not None and self.std is not None:
            shape = (3, 1, 1)
            mean = torch.tensor(self.mean, device=x.device).view(shape)
            x = x.sub_(mean).div_(torch.tensor(self.std, device=x.device).view(shape))
        return x

    def _check_output(self, embedding: object, n: int) -> None:
        if not isinstance(embedding, Tensor) or embedding.ndim != 2 or len(embedding) != n:
            found = (
                f"a tensor {tuple(embedding.shape)}"
                if isinstance(embedding, Tensor)
                else type(embedding).__name__
            )
            raise ValueError(
                f"Encoder '{self.name}' gave {found} for {n} tiles; it must give one tensor "
                f"({n}, dimension). Wrap it so that it pools its feature maps or takes the one "
                "output that is the embedding."
            )
        if self.known_dimension is not None and embedding.shape[1] != self.known_dimension:
            raise ValueError(
                f"Encoder '{self.name}' gave {embedding.shape[1]} numbers for a tile; "
                f"{self.known_dimension} were expected."
            )
        bad = int((~torch.isfinite(embedding)).any(1).sum())
        if bad:
            raise ValueError(
                f"Encoder '{self.name}' gave NaN or infinity for {bad} of {n} tiles. Look at its "
                "weights and at those tiles (uniform tiles divide by zero in some statistics)."
            )


def _check_tiles(tiles: object) -> None:
    if not isinstance(tiles, Tensor) or tiles.dtype != torch.uint8:
        found = tiles.dtype if isinstance(tiles, Tensor) else type(tiles).__name__
        raise TypeError(f"Tiles must be a uint8 tensor with values 0 to 255, not {found}.")
    if tiles.ndim != 4 or tiles.shape[1] != 3:
        raise ValueError(f"Tiles must be (b, 3, h, w), RGB, not {tuple(tiles.shape)}.")
