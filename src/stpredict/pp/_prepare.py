"""Repeat the steps that a model was trained with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._inputs import check_recipe
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import EmbedStep, LayerStep, NormalizeStainStep, NormalizeStep
from stpredict.pp._steps._replay import load_encoder, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
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
    is built; a model on pixels needs the stain only. Where spots are closer than in training, the
    neighbours are the spots at the distance of training. If the new sections have counts, the layer
    that the model was trained on is computed too, for comparison with predictions; if that is
    impossible, the reason is logged. For a stack, the inputs of every base are computed.

    Parameters
    ----------
    sdata, model
        New sections, and a fitted model.
    encoder, weights
        Encoder, if the model was trained with a module or function of your own; local file with its
        weights, instead of the hub. Stacks on several embeddings are then prepared base by base.
    batch_size, device
        Tiles at a time, and where to embed them; ``"auto"``: cuda, then mps, then cpu.
    table_name, copy
        Name of the table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes what the repeated functions of ``stp.pp`` write, or nothing if a step fails.

    Raises
    ------
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If the encoder's weights are not the model's, the spots are too far apart for its
        neighbours or on another grid, a step cannot be run, or an option is out of range.
    KeyError
        If the model was trained with a module or function of your own, and ``encoder`` is missing.

    Examples
    --------
    >>> import stpredict as stp
    >>> training, new = stp.datasets.phantom(), stp.datasets.phantom(seed=1)
    >>> stp.pp.normalize(training)
    >>> stp.pp.select_genes(training, n_top_genes=5)
    >>> stp.pp.embed(training)
    >>> model = stp.tl.fit_ridge(training, context="spot")
    >>> stp.pp.prepare(new, model)
    >>> "X_texture" in new.tables["table"].obsm
    True
    """
    _validate.whole_number("batch_size", batch_size)
    _runtime.resolve_device(device)  # raises if there is no such device
    # on a copy, so that a failing step leaves nothing behind
    spots = open_table(sdata, table_name, copy=True)
    bases = _leaves(model)
    embeddings = _embeddings(bases)
    if len(embeddings) > 1 and (encoder is not None or weights is not None):
        raise ValueError(
            f"encoder= and weights= apply to one embedding, not {_validate.listing(embeddings)}: "
            "prepare base by base, stp.pp.prepare(sdata, model.bases[name], encoder=…)"
        )
    # models on pixels have no embedding; their images only need the stain
    for stain in [base.recipe.stain for base in bases if base.uses_pixels]:
        if stain is not None:
            replay(spots, NormalizeStainStep(reference=stain))
    for slot, step in embeddings.items():
        if step.registered:
            _require_registered(spots, slot, step)
        else:
            _require_complete(slot, step)
    # before embedding, which may take long; equal steps of several bases are run once
    for rule in dict.fromkeys(base.recipe.neighbors for base in bases):
        if rule is not None:
            replay(spots, rule)
    for slot, step in embeddings.items():
        step = _with_own_subtiles(spots, slot, step)
        # each embedding right after its stain, as bases may differ in the reference
        if step.stain is not None:
            replay(spots, NormalizeStainStep(reference=step.stain))
        if not step.registered:
            loaded = load_encoder(step, encoder, weights=weights)
            replay(spots, step, slot=slot, encoder=loaded, batch_size=batch_size, device=device)
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


def _with_own_subtiles(spots: SpotTable, slot: str, step: EmbedStep) -> EmbedStep:
    """The step with as many sub-tiles as the user has in the slot, which are computed again."""
    recorded = spots.steps.embed.get(slot)
    if recorded is None or _keys.subtiles(slot) not in spots.table.obsm:
        return step
    if step.n_subtiles != 1 or step.differences(recorded, subtiles=False):
        return step
    return replace(step, n_subtiles=recorded.n_subtiles)


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
    problems = ["it is not registered"]
    if slot in spots.table.obsm and recorded is not None:
        problems = step.differences(recorded, subtiles=(step.n_subtiles or 1) > 1)
    if not problems:
        return
    raise ValueError(
        f"obsm[{slot!r}] must hold the model's features, but {'; '.join(problems)}: run "
        f"stp.pp.register_embedding(sdata, {slot!r}, encoder={step.encoder!r}, "
        f"tile_um={step.tile_um:g})"
    )


def _require_complete(slot: str, step: EmbedStep) -> None:
    """Require a step whose parameters are all reported."""
    if not step.is_complete:
        raise ValueError(
            "a published release does not report how its inputs were computed: run "
            f"stp.pp.embed(sdata, {step.encoder or '…'!r}, tile_um=…, n_subtiles=3, "
            f"key_added={slot!r}) and stp.pp.neighbors(sdata) as its paper did, then stp.tl.predict"
        )
