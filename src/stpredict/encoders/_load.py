"""Load encoders and published weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from stpredict._arguments import checked
from stpredict.encoders import _weights
from stpredict.encoders._record import Encoder, EncoderRecord
from stpredict.encoders._registry import names, record, timm_record


@checked
def load(
    encoder: str | EncoderRecord | nn.Module | Callable[[Tensor], Tensor] = "texture",
    *,
    weights: str | Path | None = None,
    name: str | None = None,
) -> Encoder:
    """Load an encoder, ready to embed tiles.

    Parameters
    ----------
    encoder
        Name from :func:`names`; ``"timm:<name>"`` for any model of timm; a record; or a module or
        callable that maps float32 tiles ``(b, 3, h, w)`` in [0, 1], which are not resized, to
        ``(b, d)``. A module is set to evaluation mode.
    weights
        Local file with the weights, ``.safetensors`` or a torch checkpoint of tensors only
        (``.bin``, ``.pt``, ``.pth``). ``None`` downloads them from the hub.
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
        If weights are damaged, unsafe or do not fit, or a function has no name.
    FileNotFoundError, RuntimeError
        If the file `weights` does not exist, or the hub does not provide the weights.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.load("texture").name
    'texture'
    """
    if isinstance(encoder, str):
        encoder = timm_record(encoder) if encoder.startswith("timm:") else record(encoder)
    if isinstance(encoder, EncoderRecord):
        return _from_record(encoder, weights=weights, name=name)
    if not callable(encoder) or isinstance(encoder, type):
        raise TypeError(
            "An encoder is a name, a record, an instance of nn.Module or a callable, not "
            f"{encoder!r}. Names: {', '.join(names())}"
        )
    if weights is not None:
        raise ValueError("weights= requires a name; use module.load_state_dict(...) for a module")
    return _from_callable(encoder, name=name)


def published_weights(backbone: str, weights: str | Path | None) -> Callable[[nn.Module], None]:
    """Read the weights of a timm model that is trained further; returns a function to load them."""
    record = timm_record(f"timm:{backbone}")
    state = _state_of(record, weights)

    def fill(module: nn.Module) -> None:
        _weights.fill(module, record.convert(dict(state), module), name=backbone)

    return fill


def _from_callable(function: Callable[[Tensor], Tensor], *, name: str | None) -> Encoder:
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
    return Encoder(name, function, identity=identity, is_custom=True, device=device)


def _from_record(record: EncoderRecord, *, weights: str | Path | None, name: str | None) -> Encoder:
    name = _check_name(record.name.replace(":", "_") if name is None else name)
    # weights are read before the network is built, so that a bad file fails early
    state = _state_of(record, weights)
    module = record.build()
    if record.fetch is not None:
        _weights.fill(module, record.convert(state, module), name=record.name)
    return Encoder(
        name,
        module.eval().requires_grad_(requires_grad=False),
        input_px=record.input_px,
        resize_px=record.resize_px,
        min_px=record.min_px,
        mean=record.mean,
        std=record.std,
        known_dimension=record.dimension or getattr(module, "dimension", None),
        identity=f"stpredict encoder {record.name} {record.version}",
        autocast=record.autocast,
    )


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
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        access = "Request access (then 'hf auth login')" if record.gated else "They are published"
        # the client's chain of causes says no more than its last message
        raise RuntimeError(
            f"The hub did not provide the weights of encoder '{record.name}' "
            f"({type(error).__name__}: {reason:.200}). {access} at {record.source} (licence: "
            f"{record.licence}), or pass a file, as in stp.pp.embed(sdata, '{record.name}', "
            "weights='path/to/model.safetensors')"
        ) from None


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"'{name}' cannot be the name of a slot: use letters, digits, '_-.' only")
    return name
