"""Repeat the steps that a model was trained with on new sections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._sdata._inputs import check_recipe
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import EmbedStep, NormalizeStainStep, ReferenceStain
from stpredict.pp._prepare._layer import make_layer
from stpredict.pp._prepare._replay import load_encoder, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
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

    The model's recipe is repeated: the stain is normalised to the model's reference, tiles are
    embedded and the neighbourhood graph is built. If the new sections have counts, the layer that
    the model was trained on is computed too, so that predictions can be compared with it; if that
    is impossible, for example because the ranked genes differ, the reason is logged. No spot is
    removed. Models on pixels read the tiles themselves and need the stain and the layer only. For a
    stack, the inputs of every base are computed, and shared inputs once.

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
    batch_size
        Tiles at a time.
    device
        ``"auto"``: cuda, then mps, then cpu.
    table_name
        Name of the table.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes what :func:`stpredict.pp.normalize_stain`, :func:`stpredict.pp.embed`,
        :func:`stpredict.pp.neighbors`, :func:`stpredict.pp.normalize`,
        :func:`stpredict.pp.smooth` and :func:`stpredict.pp.rank_expression` write. Nothing is
        written if a step fails.

    Raises
    ------
    ValueError
        If the encoder or its weights are not the model's, a step cannot be run, or features that
        were registered for the model are missing on the new sections.
    KeyError
        If the model was trained with a module or function of your own, and ``encoder`` is missing.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> training, new = stp.datasets.phantom(), stp.datasets.phantom(seed=1)
    >>> stp.pp.normalize(training)
    >>> stp.pp.select_genes(training, n_top_genes=5)
    >>> stp.pp.embed(training)
    >>> model = stp.tl.fit_ridge(training, context="spot")
    >>> stp.pp.prepare(new, model)
    >>> "X_texture" in new.tables["table"].obsm
    True
    >>> stp.settings.verbosity = 1
    """
    # on a copy, so that a failing step leaves nothing behind
    spots = open_table(sdata, table_name, copy=True)
    bases = list(_leaves(model))
    embeddings = _embeddings(bases)
    if len(embeddings) > 1 and (encoder is not None or weights is not None):
        raise ValueError(
            f"the bases of the stack use several embeddings ({_validate.listing(embeddings)}), but "
            "encoder= and weights= apply to one: prepare base by base, "
            "stp.pp.prepare(sdata, model.bases[name], encoder=…)"
        )
    # models on pixels have no embedding; their images only need the stain
    for base in bases:
        if base.uses_pixels:
            _normalize_stain(spots, base.recipe.stain)
    for slot, step in embeddings.items():
        _normalize_stain(spots, step.stain)
        if step.registered:
            _require_registered(spots, slot, step)
            continue
        _require_complete(slot, step)
        loaded = load_encoder(step, encoder, weights=weights)
        replay(spots, step, slot=slot, encoder=loaded, batch_size=batch_size, device=device)
    # equal steps of several bases are run once
    rules = dict.fromkeys(base.recipe.neighbors for base in bases)
    for rule in rules:
        if rule is not None:
            replay(spots, rule)
    if spots.table.n_vars:  # a grid on a slide has no measured expression
        for steps in dict.fromkeys(base.recipe.layer_steps for base in bases):
            make_layer(spots, steps)
    # bases of a stack may have been trained on different inputs in one slot
    for base in bases:
        if not base.uses_pixels:
            check_recipe(spots, base.recipe, subtiles=base.uses_subtiles)
    if copy:
        return spots.sdata
    _write_back(sdata, spots)
    return None


def _leaves(model: Model) -> Iterator[Model]:
    """The model itself, or the bases of a stack."""
    if not model.bases:
        yield model
    for base in model.bases.values():
        yield from _leaves(base)


def _embeddings(bases: Sequence[Model]) -> dict[str, EmbedStep]:
    """Step of each embedding, with sub-tiles if any model uses them."""
    embeddings: dict[str, EmbedStep] = {}
    # bases with sub-tiles come last, so that their step replaces one without
    for base in sorted(bases, key=lambda base: base.uses_subtiles):
        slot, step = base.recipe.embedding, base.recipe.embed
        if slot is not None and step is not None:
            embeddings[slot] = step if base.uses_subtiles else replace(step, n_subtiles=1)
    return embeddings


def _normalize_stain(spots: SpotTable, reference: ReferenceStain | None) -> None:
    """Normalise the stain, for a model that was trained on normalised images."""
    if reference is not None:
        replay(spots, NormalizeStainStep(reference=reference))


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


def _require_complete(slot: str, step: EmbedStep) -> None:
    if not step.is_complete:
        raise ValueError(
            "a published release does not report how its inputs were computed: run "
            f"stp.pp.embed(sdata, {step.encoder or '…'!r}, tile_um=…, n_subtiles=3, "
            f"key_added={slot!r}) and stp.pp.neighbors(sdata) as its paper did, then stp.tl.predict"
        )


def _write_back(sdata: SpatialData, spots: SpotTable) -> None:
    """Take over the table and the normalised images from the prepared copy."""
    for name, image in spots.sdata.images.items():
        if name not in sdata.images or sdata.images[name] is not image:
            sdata.images.pop(name, None)  # normalised to another reference
            sdata.images[name] = image
    sdata.tables[spots.name] = spots.table
