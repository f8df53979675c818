"""Encoders that are models of timm, by its names or by their repository on the hub."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from stpredict.encoders import _weights
from stpredict.encoders._aliases import suggestions
from stpredict.encoders._record import EncoderRecord

IN_TIMM, ON_HUB = "timm:", "hf-hub:"


def build(architecture: str, /, **options: Any) -> nn.Module:
    """Build a timm model without classifier: CLS token of a ViT, global mean of a CNN."""
    import timm

    module: nn.Module = timm.create_model(architecture, num_classes=0, **options)
    return module


def timm_record(encoder: str) -> EncoderRecord:
    """Record of any timm model, from its pretrained configuration."""
    import timm

    model = encoder.removeprefix(IN_TIMM)
    try:
        config = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    except RuntimeError:  # known model, unknown tag
        config = None
    if config is None:
        similar = suggestions(model, timm.list_models() + timm.list_pretrained())
        raise KeyError(f"timm has no model '{model}'.{similar} See timm.list_models().")
    source = _weights.HUB + config.hf_hub_id if config.hf_hub_id else str(config.url or "unknown")
    return EncoderRecord(
        encoder,
        functools.partial(build, model),
        **_preprocessing(config.to_dict()),
        source=source,
        fetch=functools.partial(_weights.timm_state, model),
        convert=_weights.from_timm,
        package="timm",
    )


def hub_record(encoder: str) -> EncoderRecord:
    """Record of a timm model on the hub, from the configuration in its repository."""
    from timm.models import load_model_config_from_hf

    hub_id = encoder.removeprefix(ON_HUB)
    if not re.fullmatch(r"[\w.-]+/[\w.@-]+", hub_id):
        raise KeyError(f"'{hub_id}' is not a repository: use 'hf-hub:<owner>/<name>'")
    try:
        _weights.require_hub(hub_id, "config.json")
        config, architecture, options = load_model_config_from_hf(hub_id)
    except Exception as error:  # noqa: BLE001 the hub client and timm raise many types
        access = f"Check the name and your access at {_weights.HUB}{hub_id}"
        raise _weights.hub_error(encoder, error, access) from None
    options = {k: v for k, v in (options or {}).items() if k != "num_classes"}
    return EncoderRecord(
        encoder,
        functools.partial(build, architecture, **options),
        **_preprocessing(config),
        source=_weights.HUB + hub_id,
        fetch=functools.partial(_weights.hub_state, hub_id),
        convert=_weights.from_timm,
        package="timm",
    )


def _preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Input size, normalisation and licence of a pretrained configuration."""
    from timm.data.config import resolve_data_config

    data = resolve_data_config(pretrained_cfg=dict(config))
    mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
    licence = config.get("license") or "unknown"
    return {"input_px": int(data["input_size"][-1]), "mean": mean, "std": std, "licence": licence}
