"""The encoders known by name."""

from __future__ import annotations

import difflib
import functools
from typing import Any

from torch import nn

from stpredict.encoders import _weights
from stpredict.encoders._record import EncoderRecord

_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HUB = "https://huggingface.co/"


def _texture() -> nn.Module:
    from stpredict.encoders.texture import Texture

    return Texture()


def _timm(architecture: str, /, **options: Any) -> nn.Module:
    """Build a timm architecture without classifier: CLS token of a ViT, global mean of a CNN."""
    import timm

    module: nn.Module = timm.create_model(architecture, num_classes=0, **options)
    return module


def _published(
    name: str,
    architecture: str,
    *,
    hub_id: str,
    options: dict[str, Any] | None = None,
    **facts: Any,
) -> EncoderRecord:
    build = functools.partial(_timm, architecture, **(options or {}))
    fetch = functools.partial(_weights.hub_state, hub_id)
    return EncoderRecord(name, build, fetch=fetch, source=_HUB + hub_id, **facts)


# Facts from the pages named in `source` and the papers. All networks are built by timm. Phikon and
# Phikon-v2 are published as transformers models; ViT-B/16 and ViT-L/16 with layer scale are the
# same networks, so one renaming of the file spares the second library.
_RECORDS = {
    record.name: record
    for record in (
        EncoderRecord(
            "texture",
            _texture,
            licence="MIT",
            source="stpredict",
            paper="Ruifrok & Johnston 2001 (stains); Ojala et al. 2002 (local binary patterns)",
            autocast=False,  # statistics of optical densities, not a network trained to noise
        ),
        _published(
            "uni",
            "vit_large_patch16_224",
            options={"init_values": 1e-5},
            dimension=1024,
            input_px=224,
            **_IMAGENET,
            licence="CC BY-NC-ND 4.0",
            paper="Chen et al. 2024, doi:10.1038/s41591-024-02857-3",
            gated=True,
            hub_id="MahmoodLab/UNI",
        ),
        _published(
            "h-optimus-0",
            "vit_giant_patch14_reg4_dinov2",
            options={"img_size": 224, "init_values": 1e-5},
            dimension=1536,
            input_px=224,
            mean=(0.707223, 0.578729, 0.703617),
            std=(0.211883, 0.230117, 0.177517),
            licence="Apache-2.0",
            paper="Saillard et al. 2024, https://github.com/bioptimus/releases",
            gated=True,
            hub_id="bioptimus/H-optimus-0",
        ),
        _published(
            "phikon",
            "vit_base_patch16_224",
            dimension=768,
            input_px=224,
            **_IMAGENET,
            licence="Owkin non-commercial",
            paper="Filiot et al. 2023, doi:10.1101/2023.07.21.23292757",
            hub_id="owkin/phikon",
            convert=_weights.from_hf_vit,
        ),
        _published(
            "phikon-v2",
            "vit_large_patch16_224",
            options={"init_values": 1.0},
            dimension=1024,
            input_px=224,
            **_IMAGENET,
            licence="Owkin non-commercial",
            paper="Filiot et al. 2024, arXiv:2409.09173",
            hub_id="owkin/phikon-v2",
            convert=_weights.from_hf_vit,
        ),
        _published(
            "inception_v3",
            "inception_v3",
            dimension=2048,
            input_px=299,
            # torchvision's own transform_input amounts to this normalisation
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="Apache-2.0",
            paper="Szegedy et al. 2016, arXiv:1512.00567",
            hub_id="timm/inception_v3.tv_in1k",
        ),
        _published(
            "resnet50",
            "resnet50",
            dimension=2048,
            input_px=224,
            **_IMAGENET,
            licence="BSD-3-Clause",
            paper="He et al. 2016, arXiv:1512.03385",
            hub_id="timm/resnet50.tv2_in1k",  # torchvision's IMAGENET1K_V2
        ),
        _published(
            "densenet121",
            "densenet121",
            dimension=1024,
            input_px=224,
            **_IMAGENET,
            licence="Apache-2.0",
            paper="Huang et al. 2017, arXiv:1608.06993",
            hub_id="timm/densenet121.tv_in1k",
            convert=_weights.from_old_densenet,
        ),
    )
}


def names() -> list[str]:
    """Names of the encoders with a record; ``"timm:<name>"`` opens all of timm beside them.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from stpredict import encoders
    >>> "texture" in encoders.names()
    True
    """
    return list(_RECORDS)


def record(name: str) -> EncoderRecord:
    """Give the record of an encoder: dimension, input, licence, source, paper.

    Parameters
    ----------
    name
        One of :func:`stpredict.encoders.names`.

    Returns
    -------
    EncoderRecord

    Raises
    ------
    KeyError
        For a name without a record.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.record("inception_v3").input_px
    299
    """
    if name in _RECORDS:
        return _RECORDS[name]
    raise KeyError(
        f"No encoder '{name}'.{_near(name, names())} Available: {', '.join(names())}; any model of "
        "timm as 'timm:<name>'; any nn.Module or callable."
    )


def timm_record(encoder: str) -> EncoderRecord:
    """Make the record of any model of timm from timm's own configuration of it."""
    import timm

    model = encoder.removeprefix("timm:")
    try:
        config = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    except RuntimeError:  # the model is known, its tag is not
        config = None
    if config is None:
        known = timm.list_models() + timm.list_pretrained()
        raise KeyError(
            f"timm has no model '{model}'.{_near(model, known)} timm.list_models() lists all."
        )
    mean, std = ((float(r), float(g), float(b)) for r, g, b in (config.mean, config.std))
    return EncoderRecord(
        encoder,
        functools.partial(_timm, model),
        input_px=int(config.input_size[-1]),
        mean=mean,
        std=std,
        licence=config.license or "unknown",
        source=f"{_HUB}{config.hf_hub_id}" if config.hf_hub_id else str(config.url or "unknown"),
        fetch=functools.partial(_weights.timm_state, model),
        convert=_weights.from_timm,
    )


def _near(name: str, known: list[str]) -> str:
    cased = {k.lower(): k for k in known}
    near = [cased[k] for k in difflib.get_close_matches(name.lower(), cased)]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
