"""Repeat the steps that a model was trained with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import EmbedStep, LayerStep, NormalizeStainStep, NormalizeStep
from stpredict.encoders._cache import require_cache
from stpredict.pp._steps._inputs import InputPlan
from stpredict.pp._steps._replay import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
    cache: bool = False,
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
    cache
        Whether to use stored embeddings and store new ones, as in :func:`stpredict.pp.embed`.
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
    OSError
        If the cache folder cannot be written.

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
    if cache:
        require_cache()
    # on a copy, so that a failing step leaves nothing behind
    spots = open_table(sdata, table_name, copy=True)
    plan = InputPlan.of(model, encoder=encoder, weights=weights)
    # before embedding, which may take long
    plan.normalize_stain(spots)
    plan.check_complete()
    plan.check_registered(spots)
    plan.link(spots)
    for slot, step in plan.embeddings.items():
        step = _with_own_subtiles(spots, slot, step)
        # each embedding right after its stain, as bases may differ in the reference
        if step.stain is not None:
            replay(spots, NormalizeStainStep(reference=step.stain))
        if not step.registered:
            loaded = plan.load(slot)
            options = {"batch_size": batch_size, "device": device, "cache": cache}
            replay(spots, step, slot=slot, encoder=loaded, **options)
    if spots.table.n_vars:  # a grid on a slide has no measured expression
        for steps in dict.fromkeys(base.recipe.layer_steps for base in plan.bases):
            _replay_layer(spots, steps)
    plan.check_inputs(spots)
    if copy:
        return spots.sdata
    for name, image in spots.sdata.images.items():
        if name not in sdata.images or sdata.images[name] is not image:
            sdata.images.pop(name, None)  # normalised to another reference
            sdata.images[name] = image
    sdata.tables[spots.name] = spots.table
    return None


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
