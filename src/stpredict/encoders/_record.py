"""Description of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from stpredict.encoders._weights import unchanged


@dataclass(frozen=True)
class EncoderRecord:
    """Description of an encoder, for :func:`stpredict.encoders.register`.

    Attributes
    ----------
    name
        Name of the encoder, and of the slot ``obsm["X_<name>"]``.
    build
        Function that builds the module, which maps float32 ``(b, 3, h, w)`` to ``(b, dimension)``.
    dimension
        Length of an embedding. ``None`` to use the module's ``dimension``, or a dry run.
    input_px
        Side in pixels of the encoder's input; ``None`` if any size is accepted.
    resize_px
        Side in pixels to which tiles are resized, of which the centre of ``input_px`` is cropped;
        ``None`` to resize to ``input_px`` without cropping.
    min_px
        Smallest side in pixels of tiles that are not resized.
    mean, std
        Normalisation per channel of values in [0, 1]; ``None`` for none.
    licence, source, paper, gated
        Licence (SPDX expression), web page and paper of the weights, and whether the hub requires
        accepting terms.
    fetch, convert
        Functions that download the published state dict (``None`` for an encoder without weights)
        and rename its tensors to those of the module.
    autocast
        Whether bfloat16 on a GPU is accurate enough.
    version
        Version of an encoder without weights, increased when its results change.
    package
        Package that provides the encoder or its weights.
    takes_uint8
        Whether the module takes uint8 tiles as read, and resizes and normalises them itself.
    parts
        Records of joined encoders; ``build`` is then called with the loaded encoders.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.record("uni").dimension
    1024
    """

    name: str
    build: Callable[..., nn.Module]
    dimension: int | None = None
    input_px: int | None = None
    resize_px: int | None = None
    min_px: int = 1
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
    package: str = "stpredict"
    takes_uint8: bool = False
    parts: tuple[EncoderRecord, ...] = ()

    def __post_init__(self) -> None:
        if self.resize_px is not None and self.resize_px < (self.input_px or self.resize_px + 1):
            sides = f"resize_px={self.resize_px} and input_px={self.input_px}"
            raise ValueError(f"{sides}: the centre cannot be cropped. Increase resize_px")

    @property
    def access(self) -> str:
        """What to do to get the weights, for a message."""
        first = "Request access (then 'hf auth login') at" if self.gated else "Retry with access to"
        return f"{first} {self.source} (licence: {self.licence})"
