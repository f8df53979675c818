"""Weights from a local file or the hub into an architecture; nothing is ever unpickled."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CHECKPOINTS = (".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile
# Parts that take no part in an embedding: classifiers, HF poolers, DINOv2's training token.
_HEADS = ("fc.", "head.", "classifier.", "AuxLogits.", "pooler.", "embeddings.mask_token")

# Hugging Face's file format for ViT and DINOv2, in timm's names.
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
    """Read the tensors of a ``.safetensors`` file or a torch checkpoint, executing nothing."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"No weights file at '{path}'. weights= takes one local file: .safetensors, or a torch "
            f"checkpoint ({', '.join(CHECKPOINTS)})."
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"'{path}' is no intact safetensors file: {error}.") from error
    if path.suffix not in CHECKPOINTS:
        raise ValueError(
            f"'{path.name}' is of no known kind: weights= takes .safetensors or "
            f"{', '.join(CHECKPOINTS)}."
        )
    return _tensors(_read_checkpoint(path), path)


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' was refused: it is damaged, or a pickle that holds more than tensors, and "
            "loading one can run any code. Nothing in it was executed. Ask its author for a "
            ".safetensors file, or for a checkpoint of the state dict alone."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"'{path}' is no intact torch checkpoint: {error}.") from error


def _tensors(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    """Take the usual wrappers off a checkpoint."""
    state = checkpoint
    for key in _WRAPPERS * 2:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
    if isinstance(state, Mapping):
        state = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
        for prefix in _PREFIXES * 2:
            if state and all(k.startswith(prefix) for k in state):
                state = {k.removeprefix(prefix): v for k, v in state.items()}
        if state:
            return state
    raise ValueError(
        f"'{path}' holds no state dict, neither at its top nor under "
        f"{' or '.join(map(repr, _WRAPPERS))}. It holds: {_few(found)}."
    )


def hub_state(hub_id: str) -> dict[str, Tensor]:
    """Ask the Hugging Face hub (or its local cache) for a state dict."""
    from timm.models import load_state_dict_from_hf

    state: dict[str, Tensor] = load_state_dict_from_hf(hub_id, weights_only=True)
    return state


def timm_state(model: str) -> dict[str, Tensor]:
    """Let timm find and adapt the weights of one of its models."""
    import timm

    # With num_classes=0 timm loads loosely, and a missing tensor would stay random unnoticed.
    module: Any = timm.create_model(model, pretrained=True)
    if hasattr(module, "reset_classifier"):
        module.reset_classifier(0)
    state: dict[str, Tensor] = module.state_dict()
    return state


def fill(module: nn.Module, state: dict[str, Tensor], *, name: str) -> None:
    """Load a state dict whole: every tensor of the module from the file, none left over.

    Raises
    ------
    ValueError
        Where keys or shapes differ, with counts and the first few.
    """
    wanted = module.state_dict()
    state = _without_heads(state, wanted)
    problems = _differences(wanted, state)
    if problems:
        raise ValueError(
            f"These weights do not fit encoder '{name}': {'; '.join(problems)}. Of the "
            f"{len(wanted)} tensors it has, {len(wanted.keys() & state.keys())} are in the file, "
            f"which has {len(state)}. Give the file published for this encoder, or name the "
            "encoder that the file belongs to."
        )
    module.load_state_dict(state, strict=False)


def _without_heads(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k in wanted or not k.startswith(_HEADS)}


def _differences(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    # Batch counters, absent from older files, play no part in evaluation.
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted]
    reshaped = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    return [f"{len(keys)} {kind} ({_few(keys)})" for kind, keys in kinds.items() if keys]


def _few(items: list[str] | str, n: int = 3) -> str:
    if isinstance(items, str):
        return items
    return ", ".join(items[:n]) + (", ..." if len(items) > n else "")


def unchanged(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Leave a state dict that already has the architecture's names."""
    return state


def from_hf_vit(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Bring Hugging Face's ViT and DINOv2 files to timm's names, q, k and v in one matrix."""
    state = _rename(state, _HF_VIT)
    for query in [k for k in state if ".attn.q." in k]:
        parts = [query.replace(".attn.q.", f".attn.{x}.") for x in "qkv"]
        if all(k in state for k in parts):
            qkv = torch.cat([state.pop(k) for k in parts])
            state[query.replace(".attn.q.", ".attn.qkv.")] = qkv
    return state


def from_old_densenet(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Bring torchvision's DenseNet files to the names it has used since."""
    return _rename(state, _OLD_DENSENET)


def from_timm(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Let timm adapt a file that does not fit as it is (other origin, other position grid)."""
    adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    wanted = module.state_dict()
    problems = _differences(wanted, _without_heads(state, wanted))
    if adapt is None or not problems:
        return state
    try:
        adapted: dict[str, Tensor] = adapt(dict(state), module)
    except Exception as error:
        raise ValueError(
            f"These weights do not fit {type(module).__name__}: {'; '.join(problems)}. Nor could "
            f"timm adapt them ({type(error).__name__}: {error})."
        ) from error
    return adapted


def _rename(state: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        new = key
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        renamed[new] = value
    return renamed
