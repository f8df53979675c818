"""Load encoders and published weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from stpredict._arguments import checked
from stpredict._log import warn
from stpredict.encoders import _lazyslide, _timm, _weights
from stpredict.encoders._aliases import slot_part
from stpredict.encoders._encoder import Encoder
from stpredict.encoders._normalisation import (
    Channels,
    check_normalisation,
    expected_normalisation,
)
from stpredict.encoders._record import EncoderRecord
from stpredict.encoders._registry import record


@checked
def load(
    encoder: str | EncoderRecord | nn.Module | Callable[[Tensor], Tensor] = "texture",
    *,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    name: str | None = None,
) -> Encoder:
    """Load an encoder, ready to embed tiles.

    Parameters
    ----------
    encoder
        Name from :func:`names`; ``"timm:<name>"`` for any model of timm, and
        ``"hf-hub:<owner>/<name>"`` for one on the Hugging Face hub; several names joined by ``+``,
        such as ``"texture+uni2"``, whose embeddings are put side by side; a record; or a module or
        callable that maps float32 tiles ``(b, 3, h, w)`` in [0, 1], which are not resized, to
        ``(b, d)``. A module is set to evaluation mode. A loaded encoder is returned.
    weights
        Local file with the weights, ``.safetensors`` or a torch checkpoint of tensors only
        (``.bin``, ``.pt``, ``.pth``). ``None`` downloads them from the hub.
    mean, std
        Normalisation per channel of values in [0, 1], for a module or callable that does not
        normalise its input itself. Networks of timm and torchvision do not: without ``mean`` and
        ``std``, they cause a warning.
    name
        Name of the encoder, and of ``obsm["X_<name>"]``. Default: the name of the record (with
        ``timm_`` for ``timm:``), of the function, or of the class in lower case.

    Returns
    -------
    Encoder on the CPU, or on the device of the given module.

    Raises
    ------
    KeyError, TypeError
        If the name is unknown, `encoder` is neither a name, a record, a module nor a callable, or
        `weights` is not a path.
    ValueError
        If weights are damaged, unsafe or do not fit, a function has no name, or ``mean`` and
        ``std`` are not three numbers each, or are given for a name.
    FileNotFoundError, RuntimeError, ImportError
        If the file `weights` does not exist, the hub does not provide the weights, or a package
        that the encoder needs is not installed.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.load("texture").name
    'texture'
    """
    normalisation = check_normalisation(mean, std)
    if isinstance(encoder, str):
        encoder = record(encoder)
    if normalisation and isinstance(encoder, EncoderRecord | Encoder):
        raise ValueError(f"Encoder '{encoder.name}' has its own normalisation: omit mean= and std=")
    if isinstance(encoder, EncoderRecord):
        return _from_record(encoder, weights=weights, name=name)
    if not callable(encoder) or isinstance(encoder, type):
        raise TypeError(
            "An encoder is a name, a record, an instance of nn.Module or a callable, not "
            f"{encoder!r}. See stp.encoders.names()"
        )
    if weights is not None:
        raise ValueError("weights= requires a name; use module.load_state_dict(...) for a module")
    if isinstance(encoder, Encoder):
        return encoder if name is None else replace(encoder, name=_check_name(name))
    return _from_callable(encoder, normalisation, name=name)


def published_weights(backbone: str, weights: str | Path | None) -> Callable[[nn.Module], None]:
    """Read the weights of a timm model that is trained further; returns a function to load them."""
    record = _timm.timm_record(_timm.IN_TIMM + backbone)
    state = _state_of(record, weights)

    def fill(module: nn.Module) -> None:
        _weights.fill(module, record.convert(dict(state), module), name=backbone)

    return fill


def _from_callable(
    function: Callable[[Tensor], Tensor],
    normalisation: tuple[Channels, Channels] | None,
    *,
    name: str | None,
) -> Encoder:
    kind = function if hasattr(function, "__qualname__") else type(function)
    default = getattr(function, "__name__", type(function).__name__.lower())
    if name is None and (default == "<lambda>" or isinstance(function, functools.partial)):
        # the name identifies the embeddings in later steps
        raise ValueError("A lambda or partial has no name: give name=")
    name = _check_name(default if name is None else name)
    identity = f"{kind.__module__}.{kind.__qualname__} {name}"
    device = torch.device("cpu")
    if isinstance(function, nn.Module):
        function.eval()
        device = next((t.device for t in function.state_dict().values()), device)
        expected = None if normalisation else expected_normalisation(function)
        if expected:
            values = f"mean={expected[0]}, std={expected[1]}"
            warn(
                f"the network {name!r} expects normalised tiles, and gets values in [0, 1]: pass "
                f"stp.encoders.load(module, {values}), or zeros and ones if it normalises them "
                "itself"
            )
    mean, std = normalisation or (None, None)
    return Encoder(
        name, function, mean=mean, std=std, identity=identity, is_custom=True, device=device
    )


def _from_record(record: EncoderRecord, *, weights: str | Path | None, name: str | None) -> Encoder:
    name = _check_name(slot_part(record.name) if name is None else name)
    module: nn.Module
    if record.package == _lazyslide.PACKAGE:
        module = _lazyslide.load(record, weights)
        record = replace(record, input_px=module.tile_px)
    else:
        module = _build(record, weights)
    return Encoder(
        name,
        module.eval().requires_grad_(requires_grad=False),
        takes_uint8=record.takes_uint8,
        input_px=record.input_px,
        resize_px=record.resize_px,
        min_px=record.min_px,
        mean=record.mean,
        std=record.std,
        known_dimension=record.dimension or getattr(module, "dimension", None),
        identity=f"stpredict encoder {record.name} {record.version}",
        autocast=record.autocast,
    )


def _build(record: EncoderRecord, weights: str | Path | None) -> nn.Module:
    # weights are read before the network is built, so that a bad file fails early
    state = _state_of(record, weights)
    if record.parts:
        return record.build([_from_record(part, weights=None, name=None) for part in record.parts])
    module = record.build()
    if record.fetch is not None:
        _weights.fill(module, record.convert(state, module), name=record.name)
    return module


def _state_of(record: EncoderRecord, weights: str | Path | None) -> dict[str, Tensor]:
    """State dict from a file or the hub; empty for an encoder without weights."""
    if record.fetch is None:
        if weights is not None:
            raise ValueError(f"Encoder '{record.name}' has no weights to load: omit weights=.")
        return {}
    if weights is not None:
        return _weights.read_state(weights)
    try:
        return record.fetch()
    except ModuleNotFoundError:  # an extra is not installed
        raise
    except Exception as error:  # noqa: BLE001 the hub client and timm raise many types
        raise _weights.hub_error(record.name, error, record.access) from None


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"'{name}' cannot be the name of a slot: use letters, digits, '_-.' only")
    return name
