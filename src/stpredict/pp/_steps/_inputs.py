"""The inputs of a model on new sections: which steps make them, in which order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._sdata._inputs import check_recipe
from stpredict._sdata._steps import EmbedStep, NormalizeStainStep
from stpredict.models._stack import leaves
from stpredict.pp._steps._replay import load_encoder, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.encoders import Encoder
    from stpredict.models import Model


@dataclass(frozen=True)
class InputPlan:
    """The steps that make the inputs of a model, or of all bases of a stack."""

    bases: list[Model]  # the model itself, or the bases of a stack
    embeddings: dict[str, EmbedStep]  # by slot, with sub-tiles if any base uses them
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None = None
    weights: str | Path | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None,
        weights: str | Path | None,
    ) -> InputPlan:
        """Steps of a model; ``encoder`` and ``weights`` as in `pp.prepare`."""
        bases = leaves(model)
        embeddings = _embeddings(bases)
        if len(embeddings) > 1 and (encoder is not None or weights is not None):
            raise ValueError(
                f"encoder= and weights= apply to one embedding, not {_validate.listing(embeddings)}"
                ": prepare base by base, stp.pp.prepare(sdata, model.bases[name], encoder=…)"
            )
        return cls(bases, embeddings, encoder, weights)

    @property
    def tile_sides_um(self) -> set[float]:
        """Sides of all tiles that are read."""
        tiles = {base.recipe.tiles.tile_um for base in self.bases if base.recipe.tiles is not None}
        return tiles.union(*(step.fields_um for step in self.embeddings.values()))

    def normalize_stain(self, spots: SpotTable) -> None:
        """Normalise the images for models on pixels, which need nothing else."""
        for stain in [base.recipe.stain for base in self.bases if base.uses_pixels]:
            if stain is not None:
                replay(spots, NormalizeStainStep(reference=stain))

    def check_complete(self) -> None:
        """Require that all parameters are reported of the embeddings that are computed."""
        for slot, step in self.embeddings.items():
            if not step.registered:
                _require_complete(slot, step)

    def check_registered(self, spots: SpotTable) -> None:
        """Require features that cannot be computed here to be registered."""
        for slot, step in self.embeddings.items():
            if step.registered:
                _require_registered(spots, slot, step)

    def link(self, spots: SpotTable) -> None:
        """Build the neighbourhood graph; equal rules of several bases are run once."""
        for rule in dict.fromkeys(base.recipe.neighbors for base in self.bases):
            if rule is not None:
                replay(spots, rule)

    def load(self, slot: str) -> Encoder:
        """Load the encoder of an embedding; its weights must be those of training."""
        return load_encoder(self.embeddings[slot], self.encoder, weights=self.weights)

    def check_inputs(self, spots: SpotTable) -> None:
        """Compare all inputs with the recipes: bases may differ in what one slot holds."""
        for base in self.bases:
            if not base.uses_pixels:
                check_recipe(spots, base.recipe, subtiles=base.uses_subtiles)


def _embeddings(bases: Sequence[Model]) -> dict[str, EmbedStep]:
    """Step of each embedding, with sub-tiles if any model uses them."""
    embeddings: dict[str, EmbedStep] = {}
    # bases with sub-tiles come last, so that their step replaces one without
    for base in sorted(bases, key=lambda base: base.uses_subtiles):
        slot, step = base.recipe.embedding, base.recipe.embed
        if slot is not None and step is not None:
            embeddings[slot] = step if base.uses_subtiles else replace(step, n_subtiles=1)
    return embeddings


def _require_registered(spots: SpotTable, slot: str, step: EmbedStep) -> None:
    """Require features that cannot be computed here to be registered with the same parameters."""
    recorded = spots.steps.embed.get(slot)
    problems = ["it is not registered"]
    if slot in spots.table.obsm and recorded is not None:
        problems = step.differences(recorded, subtiles=(step.n_subtiles or 1) > 1)
    if not problems:
        return
    sides = ", ".join(f"{side:g}" for side in step.fields_um)
    raise ValueError(
        f"obsm[{slot!r}] must hold the model's features, but {'; '.join(problems)}: run "
        f"stp.pp.register_embedding(sdata, {slot!r}, encoder={step.encoder!r}, "
        f"tile_um={sides})"
    )


def _require_complete(slot: str, step: EmbedStep) -> None:
    """Require a step whose parameters are all reported."""
    if not step.is_complete:
        raise ValueError(
            "a published release does not report how its inputs were computed: run "
            f"stp.pp.embed(sdata, {step.encoder or '…'!r}, tile_um=…, n_subtiles=3, "
            f"key_added={slot!r}) and stp.pp.neighbors(sdata) as its paper did, then stp.tl.predict"
        )
