"""Repeat the steps that a model was trained with on new sections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._log import info
from stpredict._sdata._inputs import check_recipe
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import EmbedStep, LayerStep, NormalizeStainStep, NormalizeStep
from stpredict.pp._prepare._replay import load_encoder, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

    from stpredict.models import Model


def prepare(
    sdata: SpatialData,
    model: Model,
    *,
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None = None,
    weights: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    table_name: str = "table",
    copy: bool = False,
) -> SpatialData | None:
    """Compute a model's inputs on new sections, by the steps it was trained with.

    The stain is normalised to the model's reference, tiles are embedded and the neighbourhood graph
    is built; a model on pixels needs the stain only. If the new sections have counts, the layer
    that the model was trained on is computed too, for comparison with predictions; if that is
    impossible, the reason is logged. For a stack, the inputs of every base are computed.

    Parameters
    ----------
    sdata
        New sections.
    model
        Fitted model.
    encoder
        Encoder, if the model was trained with a module or function of your own. Stacks on several
        embeddings are then prepared base by base.
    weights
        Local file with the encoder's weights, instead of the hub.
    batch_size, device
        Tiles at a time, and where to embed them; ``"auto"``: cuda, then mps, then cpu.
    table_name, copy
        Name of the table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes what the functions of ``stp.pp`` write that made the model's inputs. Nothing is
        written if a step fails.

    Raises
    ------
    ValueError
        If the encoder's weights are not the model's, a step cannot be run, or registered features
        are missing on the new sections.
    KeyError
        If the model was trained with a module or function of your own, and ``encoder`` is missing.

    Examples
    --------
    >>> import stpredict as stp
    >>> training, new = stp.datasets.phantom(), stp.datasets.phantom(seed=1)
    >>> stp.pp.normalize(training)
    >>> stp.pp.embed(training)
    >>> model = stp.tl.fit_ridge(training, context="spot")
    >>> stp.pp.prepare(new, model)
    >>> "X_texture" in new.tables["table"].obsm
    True
    """
    # on a copy, so that a failing step leaves nothing behind
    spots = open_table(sdata, table_name, copy=True)
    bases = _leaves(model)
    embeddings = _embeddings(bases)
    if len(embeddings) > 1 and (encoder is not None or weights is not None):
        raise ValueError(
            f"the bases of the stack use several embeddings ({_validate.listing(embeddings)}), but "
            "encoder= and weights= apply to one: prepare base by base, "
            "stp.pp.prepare(sdata, model.bases[name], encoder=…)"
        )
    # models on pixels have no embedding; their images only need the stain
    for stain in [base.recipe.stain for base in bases if base.uses_pixels]:
        if stain is not None:
            replay(spots, NormalizeStainStep(reference=stain))
    for slot, step in embeddings.items():
        # each embedding right after its stain, as bases may differ in the reference
        if step.stain is not None:
            replay(spots, NormalizeStainStep(reference=step.stain))
        if not step.registered:
            loaded = load_encoder(_complete(step, slot), encoder, weights=weights)
            replay(spots, step, slot=slot, encoder=loaded, batch_size=batch_size, device=device)
        else:
            _require_registered(spots, slot, step)
    # equal steps of several bases are run once
    for rule in dict.fromkeys(base.recipe.neighbors for base in bases):
        if rule is not None:
            replay(spots, rule)
    if spots.table.n_vars:  # a grid on a slide has no measured expression
        for steps in dict.fromkeys(base.recipe.layer_steps for base in bases):
            _replay_layer(spots, steps)
    # bases of a stack may have been trained on different inputs in one slot
    for base in bases:
        if not base.uses_pixels:
            check_recipe(spots, base.recipe, subtiles=base.uses_subtiles)
    if copy:
        return spots.sdata
    for name, image in spots.sdata.images.items():
        if name not in sdata.images or sdata.images[name] is not image:
            sdata.images.pop(name, None)  # normalised to another reference
            sdata.images[name] = image
    sdata.tables[spots.name] = spots.table
    return None


def _leaves(model: Model) -> list[Model]:
    """The model itself, or the bases of a stack."""
    bases = [leaf for base in model.bases.values() for leaf in _leaves(base)]
    return bases or [model]


def _embeddings(bases: Sequence[Model]) -> dict[str, EmbedStep]:
    """Step of each embedding, with sub-tiles if any model uses them."""
    embeddings: dict[str, EmbedStep] = {}
    # bases with sub-tiles come last, so that their step replaces one without
    for base in sorted(bases, key=lambda base: base.uses_subtiles):
        slot, step = base.recipe.embedding, base.recipe.embed
        if slot is not None and step is not None:
            embeddings[slot] = step if base.uses_subtiles else replace(step, n_subtiles=1)
    return embeddings


def _replay_layer(spots: SpotTable, steps: Iterable[LayerStep]) -> None:
    """Repeat the steps of a layer; log why, if the measured data do not allow one of them."""
    for step in steps:
        try:
            replay(spots, step)
        except (KeyError, ValueError) as error:
            if isinstance(step, NormalizeStep):  # invalid counts
                raise
            reason = error.args[0]  # a KeyError would be printed in quotes
            info(f"prepare: the layer that the model predicts is not computed: {reason}")
            return


def _require_registered(spots: SpotTable, slot: str, step: EmbedStep) -> None:
    """Require features that cannot be computed here to be registered with the same parameters."""
    recorded = spots.steps.embed.get(slot)
    if slot not in spots.table.obsm or recorded is None:
        problem = "is not registered"
    else:
        differences = step.differences(recorded, subtiles=(step.n_subtiles or 1) > 1)
        if not differences:
            return
        problem = f"differs: {'; '.join(differences)}"
    raise ValueError(
        f"the model uses features that were computed elsewhere, but obsm[{slot!r}] {problem}. "
        f"Compute it and run stp.pp.register_embedding(sdata, {slot!r}, "
        f"encoder={step.encoder!r}, tile_um={step.tile_um:g})"
    )


def _complete(step: EmbedStep, slot: str) -> EmbedStep:
    """Require a step whose parameters are all reported."""
    if not step.is_complete:
        raise ValueError(
            "a published release does not report how its inputs were computed: run "
            f"stp.pp.embed(sdata, {step.encoder or '…'!r}, tile_um=…, n_subtiles=3, "
            f"key_added={slot!r}) and stp.pp.neighbors(sdata) as its paper did, then stp.tl.predict"
        )
    return step
