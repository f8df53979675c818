"""Read weights from a file or the hub and load them into a module, without unpickling objects."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from stpredict import _validate

HUB = "https://huggingface.co/"
_State: TypeAlias = dict[str, Tensor]
_CHECKPOINTS = (".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model")  # keys under which training scripts save the weights
_PREFIXES = ("module.", "_orig_mod.")  # added by DistributedDataParallel and torch.compile
# Tensors that embeddings do not use: classifiers, HF poolers, DINOv2's mask token.
_HEADS = ("fc.", "head.", "classifier.", "AuxLogits.", "pooler.", "embeddings.mask_token")

# Names of ViT and DINOv2 tensors in Hugging Face transformers, and in timm.
_HF_VIT = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.([qkv])(?:uery|ey|alue)\.", r".attn.\1."),
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


def read_state(path: str | Path) -> _State:
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
        formats = ", ".join(_CHECKPOINTS)
        raise ValueError(f"'{path.name}' has an unknown format: use .safetensors or {formats}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # a pickle may execute any code
        raise ValueError(
            f"'{path}' was not loaded: it is damaged or has more than tensors. Use a .safetensors "
            "file, or a checkpoint of the state dict alone."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"'{path}' is not a valid torch checkpoint: {error}.") from error
    return _unwrap(checkpoint, path)


def _unwrap(checkpoint: Any, path: Path) -> _State:
    """Remove the usual wrappers and prefixes of a checkpoint."""
    state = checkpoint
    for key in _WRAPPERS * 2:  # wrappers and prefixes can be nested
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
    listed = _validate.listing(content)
    raise ValueError(f"'{path}' does not contain a state dict. It contains: {listed}")


def require_hub(hub_id: str, *files: str) -> None:
    """Raise at once if files, by default weights, are neither cached nor available on the hub."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    names = files or ("model.safetensors", "pytorch_model.bin")
    # the hub's client retries for a minute; without a network, a single request fails at once
    if not any(isinstance(huggingface_hub.try_to_load_from_cache(hub_id, n), str) for n in names):
        with suppress(EntryNotFoundError):  # published in another format
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(hub_id, names[0]))


def cached_repositories() -> set[str]:
    """Repositories of the hub that are, at least in part, on this machine."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        return {repository.repo_id for repository in scan_cache_dir().repos}
    except CacheNotFound:
        return set()


def hub_error(
    encoder: str, error: Exception, access: str, *, takes_file: bool = True
) -> RuntimeError:
    """One message for the chain of errors of the hub's client, which says no more."""
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    file = (
        f"pass a file, as in stp.pp.embed(sdata, '{encoder}', weights='path/to/model.safetensors')"
        if takes_file
        else "copy the hub's cache of another machine"
    )
    return RuntimeError(
        f"The hub did not provide the weights of encoder '{encoder}' ({type(error).__name__}: "
        f"{reason:.200}). {access}, {file}, or use 'efficientnet_lite0' or 'texture', which need "
        "no hub"
    )


def hub_state(hub_id: str) -> _State:
    """Download a state dict from the Hugging Face hub, or read it from the local cache."""
    from timm.models import load_state_dict_from_hf

    require_hub(hub_id)
    state: _State = load_state_dict_from_hf(hub_id, weights_only=True)
    return state


def timm_state(model: str) -> _State:
    """Published weights of a timm model."""
    import timm

    config = timm.get_pretrained_cfg(model)
    if config is not None and config.hf_hub_id:
        require_hub(config.hf_hub_id)
    # With num_classes=0, timm ignores missing tensors, which would remain random.
    module: Any = timm.create_model(model, pretrained=True)
    if hasattr(module, "reset_classifier"):
        module.reset_classifier(0)
    state: _State = module.state_dict()
    return state


def fill(module: nn.Module, state: _State, *, name: str) -> None:
    """Load a state dict that must match the module exactly, apart from classifiers."""
    expected = module.state_dict()
    state = _without_heads(state, expected)
    differences = _differences(expected, state)
    if differences:
        listed = "; ".join(differences)
        raise ValueError(f"These weights do not fit encoder '{name}': {listed}. Use its own file")
    # not strict: batch counters may be missing
    module.load_state_dict(state, strict=False)


def _without_heads(state: _State, expected: _State) -> _State:
    return {k: v for k, v in state.items() if k in expected or not k.startswith(_HEADS)}


def _differences(expected: _State, state: _State) -> list[str]:
    # older files have no batch counters, which evaluation does not use
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    shapes = {k: (tuple(state[k].shape), tuple(expected[k].shape)) for k in expected if k in state}
    reshaped = [f"{k} {a} instead of {b}" for k, (a, b) in shapes.items() if a != b]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    return [f"{len(k)} {kind} ({_validate.listing(k, most=3)})" for kind, k in kinds.items() if k]


def unchanged(state: _State, module: nn.Module) -> _State:
    """State dict of a file that already has the names of the module."""
    return state


def from_hf_vit(state: _State, module: nn.Module) -> _State:
    """Rename the tensors of transformers' ViT and DINOv2, and concatenate q, k and v."""
    state = _rename(state, _HF_VIT)
    for query in [k for k in state if ".attn.q." in k]:
        parts = [query.replace(".attn.q.", f".attn.{x}.") for x in "qkv"]
        if all(k in state for k in parts):
            qkv = torch.cat([state.pop(k) for k in parts])
            state[query.replace(".attn.q.", ".attn.qkv.")] = qkv
    return state


def from_old_densenet(state: _State, module: nn.Module) -> _State:
    """Rename the tensors of torchvision's old DenseNet files."""
    return _rename(state, _OLD_DENSENET)


def from_timm(state: _State, module: nn.Module) -> _State:
    """Convert a file that does not fit with timm's filter (other source, other position grid)."""
    # timm defines the filter in the module of the network
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    expected = module.state_dict()
    differences = _differences(expected, _without_heads(state, expected))
    if convert is None or not differences:
        return state
    try:
        converted: _State = convert(dict(state), module)
    except Exception as error:  # the filters expect certain names and shapes
        listed = "; ".join(differences)
        raise ValueError(f"These weights do not fit {type(module).__name__}: {listed}") from error
    return converted


def _rename(state: _State, rules: tuple[tuple[str, str], ...]) -> _State:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
