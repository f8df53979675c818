"""The one door to all encoders."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from stpredict.encoders import _weights
from stpredict.encoders._record import Encoder, EncoderRecord
from stpredict.encoders._registry import names, record, timm_record


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
        A name of :func:`names`; ``"timm:<name>"`` for any model of timm; a record; a module or
        callable that takes float32 tiles ``(b, 3, h, w)`` in [0, 1], of the size they come in, and
        gives ``(b, d)``. A module is put in evaluation mode.
    weights
        Local file with the weights: ``.safetensors``, or a torch checkpoint of tensors alone
        (``.bin``, ``.pt``, ``.pth``). ``None`` asks the hub, where the encoder has weights.
    name
        Name of the result, and so of ``obsm["X_<name>"]``. Default: the encoder's own, with
        ``timm_`` for ``timm:``; the function's name; the class's name in lower case.

    Returns
    -------
    Encoder on the CPU, or where the module given is.

    Raises
    ------
    KeyError
        For an unknown name.
    ValueError
        For weights that are refused, damaged or do not fit; for a function without a name.
    FileNotFoundError
        Where there is no file ``weights``.
    RuntimeError
        Where the hub does not give the weights (offline, gated); says what to do.

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
            f"{encoder!r}. Names: {', '.join(names())}."
        )
    if weights is not None:
        raise ValueError(
            "weights= is for encoders known by name. Load them into the module itself, then give "
            "the module: module.load_state_dict(...)."
        )
    return _from_callable(encoder, name=name)


def _from_callable(function: Callable[[Tensor], Tensor], *, name: str | None) -> Encoder:
    kind = function if hasattr(function, "__qualname__") else type(function)
    own = getattr(function, "__name__", type(function).__name__.lower())
    if name is None and (own == "<lambda>" or isinstance(function, functools.partial)):
        raise ValueError(
            "A lambda or partial has no name of its own, by which embeddings could be told apart: "
            "give name=, as in load(encoder, name='my_encoder')."
        )
    name = _checked(own if name is None else name)
    identity = f"{kind.__module__}.{kind.__qualname__} {name}"
    device = torch.device("cpu")
    if isinstance(function, nn.Module):
        function.eval()
        device = next((t.device for t in function.state_dict().values()), device)
    return Encoder(name, function, identity=identity, device=device)


def _from_record(record: EncoderRecord, *, weights: str | Path | None, name: str | None) -> Encoder:
    if weights is not None and record.fetch is None:
        raise ValueError(f"Encoder '{record.name}' has no weights to load: leave weights= out.")
    slot = _checked(record.name.replace(":", "_") if name is None else name)
    # The file is read before the network is built, so that a bad one is told at once.
    state = None
    if weights is not None:
        state = _weights.read_state(weights)
    elif record.fetch is not None:
        state = _ask_hub(record, record.fetch)
    module = record.build()
    if state is not None:
        _weights.fill(module, record.convert(state, module), name=record.name)
    known = record.dimension if record.dimension is not None else getattr(module, "dimension", None)
    return Encoder(
        slot,
        module.eval().requires_grad_(requires_grad=False),
        input_px=record.input_px,
        mean=record.mean,
        std=record.std,
        known_dimension=known,
        identity=f"stpredict encoder {record.name} {record.version}",
        autocast=record.autocast,
    )


def _ask_hub(record: EncoderRecord, fetch: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return fetch()
    except Exception as error:
        gate = (
            f"They are gated: request access at {record.source} (licence: {record.licence}) and "
            "sign in with 'hf auth login'."
            if record.gated
            else f"They are at {record.source} (licence: {record.licence})."
        )
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise RuntimeError(
            f"The hub did not give the weights of encoder '{record.name}' "
            f"({type(error).__name__}: {reason}). {gate} Without the network, give a local copy: "
            f"load('{record.name}', weights='path/to/model.safetensors'). The encoder 'texture' "
            "needs no weights."
        ) from error


def _checked(name: str) -> str:
    if re.fullmatch(r"[\w.-]+", name):
        return name
    raise ValueError(
        f"'{name}' cannot name a slot on disk: use letters, digits, '_', '-' and '.' in name=."
    )
