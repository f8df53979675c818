"""The one interpreter that repeats recorded steps."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stpredict import _runtime, encoders
from stpredict._sdata._differences import response_differences
from stpredict._sdata._spot_table import SpotTable
from stpredict._sdata._steps import EmbedStep, NormalizeStainStep, Step
from stpredict.pp._balance import weight_spots
from stpredict.pp._embed import embed_tiles
from stpredict.pp._neighbors import link_neighbors
from stpredict.pp._normalize import normalize_counts
from stpredict.pp._rank_expression import rank_layer
from stpredict.pp._select_genes import mark_genes
from stpredict.pp._smooth import smooth_layer
from stpredict.pp._stain._fit import to_stain
from stpredict.pp._stain._normalize_stain import map_sections

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch


def replay(spots: SpotTable, step: Step, **options: Any) -> None:
    """Run a recorded step on an opened table; the options are those of `_replay_embed`."""
    _RUN[step.name](spots, step, **options)


def load_encoder(
    step: EmbedStep,
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None = None,
    *,
    weights: str | Path | None = None,
) -> encoders.Encoder:
    """Load the encoder of a step by its name, or wrap the given one; its weights must match."""
    name = str(step.encoder)
    try:
        loaded = encoders.load(
            name if encoder is None else encoder,
            weights=weights,
            name=None if encoder is None else name,
        )
    except KeyError as error:  # a module or function of the user
        raise KeyError(
            f"{name!r} is a custom encoder, or its extra is not installed: give it as encoder=, or "
            "pip install 'stpredict[encoders]'"
        ) from error
    # the same name with other weights would give silently wrong predictions
    if loaded.weights_hash != step.weights_hash:
        raise ValueError(
            f"the encoder {loaded.name!r} has other weights than recorded "
            f"({loaded.weights_hash[:12]}… instead of {str(step.weights_hash)[:12]}…): give the "
            "same file as weights="
        )
    if loaded.is_custom and response_differences(step.response, loaded.response):
        raise ValueError(
            f"the encoder {loaded.name!r} computes other values than recorded: give the function "
            "or module that was used then as encoder="
        )
    return loaded


def _replay_embed(
    spots: SpotTable,
    step: EmbedStep,
    *,
    slot: str,
    encoder: encoders.Encoder | None = None,
    batch_size: int = 64,
    device: str = "auto",
    cache: bool = False,
) -> None:
    loaded = encoder or load_encoder(step)
    torch_device = _runtime.resolve_device(device)
    embed_tiles(
        spots, step, loaded, slot=slot, batch_size=batch_size, device=torch_device, cache=cache
    )


def _replay_stain(spots: SpotTable, step: NormalizeStainStep) -> None:
    """Normalise to the recorded reference; if its sections are named, fit it to them again."""
    method, sections = step.reference.method, step.reference_sections
    reference = to_stain(step.reference, method) if sections is None else None
    with suppress(ValueError):  # only some images are normalised: normalise all of them again
        if reference is not None and spots.stain == step.reference:
            return
    skip = bool(step.skipped)
    map_sections(spots, method=method, sections=sections or (), reference=reference, skip=skip)


#: Function that runs each step by its name.
_RUN: dict[str, Callable[..., None]] = {
    "embed": _replay_embed,
    "normalize_stain": _replay_stain,
    "neighbors": link_neighbors,
    "normalize": normalize_counts,
    "smooth": smooth_layer,
    "rank_expression": rank_layer,
    "select_genes": mark_genes,
    "balance": weight_spots,
}
