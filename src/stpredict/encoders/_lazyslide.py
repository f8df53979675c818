"""Image encoders of lazyslide-models, with their own transforms."""

from __future__ import annotations

import functools
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from stpredict.encoders import _weights
from stpredict.encoders._record import EncoderRecord

PACKAGE = "lazyslide-models"
INSTALL = "pip install 'stpredict[encoders]'"
#: Models that read the file model_path; the others accept this argument and ignore it.
_READ_FILES = {"conch", "conch-madeleine", "crisp", "crown", "gigapath-flash", "uni2"}
#: Repository of the models that are not published on the hub.
_EXPORTED = "RendeiroLab/LazySlide-models-gpl"
#: SPDX identifiers of licences that the package spells otherwise.
_SPDX = {"Apache 2.0": "Apache-2.0", "CC BY-NC-ND 4.0": "CC-BY-NC-ND-4.0"}


def _models() -> dict[str, Any]:
    """Classes that encode an image into a vector, by name; empty without the package."""
    try:
        import lazyslide_models
    except ModuleNotFoundError as error:
        if error.name != "lazyslide_models":
            raise
        return {}
    tasks = ("vision", "multimodal")
    keys = [key for task in tasks for key in lazyslide_models.list_models(task)]
    classes = {key: lazyslide_models.MODEL_REGISTRY[key] for key in keys}
    return {key: model for key, model in classes.items() if hasattr(model, "encode_image")}


def names() -> list[str]:
    """Names of the encoders, sorted; empty without the package."""
    return sorted(_models())


def record(name: str) -> EncoderRecord:
    """Record of an encoder, from its entry in the registry of the package."""
    model = _models()[name]
    licences = [model.license] if isinstance(model.license, str) else model.license or ["unknown"]
    return EncoderRecord(
        name,
        functools.partial(_build, model, None),
        dimension=model.encode_dim,
        input_px=_declared_px(model),
        takes_uint8=True,
        licence=" AND ".join(map(_spdx, licences)),
        source=model.hf_url or model.github_url or "unknown",
        paper=model.paper_url or "",
        gated=bool(model.is_gated),
        package=PACKAGE,
    )


def _spdx(licence: str) -> str:
    """SPDX identifier of a licence; ``LicenseRef-`` precedes names that SPDX does not list."""
    licence = _SPDX.get(licence, licence)
    if re.fullmatch(r"unknown|MIT|(AGPL|Apache|BSD|CC|GPL|LicenseRef)-[\w.-]+", licence):
        return licence
    return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", licence)


def load(encoder: EncoderRecord, weights: str | Path | None) -> LazySlideModel:
    """Load an encoder with the weights of the hub or of a file."""
    model = _models()[encoder.name]
    on_hub = encoder.source.startswith(_weights.HUB)
    repository = encoder.source.removeprefix(_weights.HUB) if on_hub else _EXPORTED
    if weights is not None:
        return _from_file(encoder, model, weights)
    try:
        # a single request fails at once without a network
        if repository not in _weights.cached_repositories():
            _weights.require_hub(repository)
        return _build(model, None)
    except ImportError:  # names the package that the model needs
        raise
    except Exception as error:  # noqa: BLE001 the hub client and the models raise many types
        takes_file = encoder.name in _READ_FILES
        raise _weights.hub_error(
            encoder.name, error, encoder.access, takes_file=takes_file
        ) from None


def _from_file(encoder: EncoderRecord, model: Any, weights: str | Path) -> LazySlideModel:
    if encoder.name not in _READ_FILES:
        raise ValueError(
            f"Encoder '{encoder.name}' of {PACKAGE} reads no file: omit weights=, and without a "
            f"network copy the hub's cache of {encoder.source} to this machine"
        )
    state = _weights.read_state(weights)
    with tempfile.TemporaryDirectory() as folder:
        # the models read torch checkpoints only, without wrappers
        path = Path(folder) / "weights.pt"
        torch.save(state, path)
        try:
            return _build(model, str(path))
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"These weights do not fit encoder '{encoder.name}': {reason:.200}. Use its own "
                "file"
            ) from None


def _build(model: Any, path: str | None) -> LazySlideModel:
    return LazySlideModel(model(model_path=path))


def _declared_px(model: Any) -> int:
    """Side of the input that a class declares; its transform is known after loading only."""
    constraint = model.input_constraint
    return int((constraint and constraint.min) or getattr(model, "image_size", 224))


class LazySlideModel(nn.Module):
    """Image model of lazyslide-models, from uint8 tiles, with its own transform."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.network = model.model if isinstance(model.model, nn.Module) else nn.Identity()
        with suppress(NotImplementedError):  # exported programs have no modes
            self.network.eval()
        self.transform = model.get_transform()
        # Tiles are read at the size to which the transform would resize them. Without a transform,
        # the model itself prepares its input.
        steps = getattr(self.transform, "transforms", ())
        sizes = [step.size for step in steps if hasattr(step, "size")]
        self.tile_px = int(sizes[0][0]) if sizes else _declared_px(model)

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the network stays in the evaluation mode in which it was loaded."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the model, which may have further networks."""
        self.model.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def forward(self, tiles: Tensor) -> Tensor:
        """Embeddings ``(b, dimension)`` of uint8 tiles ``(b, 3, h, w)``."""
        prepared = tiles if self.transform is None else self.transform(tiles)
        # torchvision's transforms return a subclass of tensors
        return torch.as_tensor(self.model.encode_image(prepared.as_subclass(Tensor)))
