"""Read weights from a file or the hub and load them into a module, without unpickling objects."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stpredict import _validate

_CHECKPOINTS = (".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # added by DistributedDataParallel and torch.compile
# Tensors that embeddings do not use: classifiers, HF poolers, DINOv2's mask token.
_HEADS = ("fc.", "head.", "classifier.", "AuxLogits.", "pooler.", "embeddings.mask_token")

# Names of ViT and DINOv2 tensors in Hugging Face transformers, and in timm.
_HF_VIT = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(q)uery\.", r".attn.\1."),
    (r"\.attention\.attention\.(k)ey\.", r".attn.\1."),
    (r"\.attention\.attention\.(v)alue\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
# torchvision's DenseNet files predate Python's ban on dots in module names.
_OLD_DENSENET = ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file or a torch checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No weights file at '{path}'.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"'{path}' is not a valid safetensors file: {error}.") from error
    if path.suffix not in _CHECKPOINTS:
        raise ValueError(
            f"'{path.name}' has an unknown format: use .safetensors or {', '.join(_CHECKPOINTS)}."
        )
    return _unwrap(_read_checkpoint(path), path)


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' was not loaded: it is damaged, or a pickle with more than tensors, which "
            "could execute arbitrary code. Use a .safetensors file, or a checkpoint of the state "
            "dict alone."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"'{path}' is not a valid torch checkpoint: {error}.") from error


def _unwrap(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    """Remove the usual wrappers and prefixes of a checkpoint."""
    state = checkpoint
    for key in _WRAPPERS * 2:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    content = sorted(map(str, state)) if isinstance(state, Mapping) else [type(state).__name__]
    if isinstance(state, Mapping):
        state = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
        for prefix in _PREFIXES * 2:
            if state and all(k.startswith(prefix) for k in state):
                state = {k.removeprefix(prefix): v for k, v in state.items()}
        if state:
            return state
    raise ValueError(
        f"'{path}' does not contain a state dict. It contains: {_validate.listing(content)}."
    )


def hub_state(hub_id: str) -> dict[str, Tensor]:
    """Download a state dict from the Hugging Face hub, or read it from the local cache."""
    from timm.models import load_state_dict_from_hf

    state: dict[str, Tensor] = load_state_dict_from_hf(hub_id, weights_only=True)
    return state


def timm_state(model: str) -> dict[str, Tensor]:
    """Published weights of a timm model."""
    import timm

    # With num_classes=0, timm ignores missing tensors, which would remain random.
    module: Any = timm.create_model(model, pretrained=True)
    if hasattr(module, "reset_classifier"):
        module.reset_classifier(0)
    state: dict[str, Tensor] = module.state_dict()
    return state


def fill(module: nn.Module, state: dict[str, Tensor], *, name: str) -> None:
    """Load a state dict that must match the module exactly, apart from classifiers.

    Raises
    ------
    ValueError
        If names or shapes differ.
    """
    expected = module.state_dict()
    state = _without_heads(state, expected)
    differences = _differences(expected, state)
    if differences:
        raise ValueError(
            f"These weights do not fit encoder '{name}': {'; '.join(differences)}. Use the file "
            "that was published for this encoder."
        )
    # not strict: batch counters may be missing
    module.load_state_dict(state, strict=False)


def _without_heads(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k in expected or not k.startswith(_HEADS)}


def _differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    # older files have no batch counters, which evaluation does not use
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    reshaped = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    return [
        f"{len(keys)} {kind} ({_validate.listing(keys, most=3)})"
        for kind, keys in kinds.items()
        if keys
    ]


def unchanged(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """State dict of a file that already has the names of the module."""
    return state


def from_hf_vit(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of transformers' ViT and DINOv2, and concatenate q, k and v."""
    state = _rename(state, _HF_VIT)
    for query in [k for k in state if ".attn.q." in k]:
        parts = [query.replace(".attn.q.", f".attn.{x}.") for x in "qkv"]
        if all(k in state for k in parts):
            qkv = torch.cat([state.pop(k) for k in parts])
            state[query.replace(".attn.q.", ".attn.qkv.")] = qkv
    return state


def from_old_densenet(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of torchvision's old DenseNet files."""
    return _rename(state, _OLD_DENSENET)


def from_timm(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Convert a file that does not fit with timm's filter (other source, other position grid)."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    expected = module.state_dict()
    differences = _differences(expected, _without_heads(state, expected))
    if convert is None or not differences:
        return state
    try:
        converted: dict[str, Tensor] = convert(dict(state), module)
    except Exception as error:
        raise ValueError(
            f"These weights do not fit {type(module).__name__}: {'; '.join(differences)}. timm "
            f"could not convert them ({type(error).__name__}: {error})."
        ) from error
    return converted


def _rename(state: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
