"""Repeat recorded steps on an opened table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stpredict import encoders
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

    from stpredict._sdata._spot_table import SpotTable


def replay(
    spots: SpotTable,
    step: Step,
    *,
    slot: str | None = None,
    encoder: encoders.Encoder | None = None,
    batch_size: int = 64,
    device: str = "auto",
) -> None:
    """Run a recorded step on an opened table; the options are those of an `EmbedStep`."""
    if isinstance(step, EmbedStep):
        loaded = encoder or load_encoder(step)
        embed_tiles(spots, step, loaded, slot=str(slot), batch_size=batch_size, device=device)
    else:
        _RUN[step.name](spots, step)


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
    except KeyError as error:  # the name of a module or function of the user
        raise KeyError(f"{name!r} is a custom encoder: give it as encoder=") from error
    # the same name with other weights would give silently wrong predictions
    if loaded.weights_hash != step.weights_hash:
        raise ValueError(
            f"the encoder {loaded.name!r} has other weights than recorded "
            f"({loaded.weights_hash[:12]}… instead of {str(step.weights_hash)[:12]}…): give the "
            "same file as weights="
        )
    return loaded


def _replay_stain(spots: SpotTable, step: NormalizeStainStep) -> None:
    """Normalise to the recorded reference, unless the images are normalised to it already."""
    try:
        if spots.stain == step.reference:
            return
    except ValueError:  # only some images are normalised: normalise all of them again
        pass
    method = step.reference.method
    reference = to_stain(step.reference, method)
    map_sections(spots, method=method, reference=reference, skip=bool(step.skipped))


#: Function that runs each step by its name, apart from `EmbedStep`, which takes an encoder.
_RUN: dict[str, Callable[[SpotTable, Any], None]] = {
    "normalize_stain": _replay_stain,
    "neighbors": link_neighbors,
    "normalize": normalize_counts,
    "smooth": smooth_layer,
    "rank_expression": rank_layer,
    "select_genes": mark_genes,
    "balance": weight_spots,
}
