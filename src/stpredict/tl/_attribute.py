"""Attribute the prediction of a gene to the inputs of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._log import progress_bar
from stpredict._sdata._pixels import restrict_sections, sections_for_tiles, stream_tiles
from stpredict._sdata._provenance import record, recorded
from stpredict._sdata._slots import check_slot
from stpredict._sdata._spot_table import open_table
from stpredict.models import _attribution
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._inputs import embedding_inputs
from stpredict.tl._prediction._selection import select_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.models._attribution import Attributed

#: Largest relative gap at which attributions count as complete.
_TOLERANCE = 0.05
#: Share of a gene's standard deviation by which predictions may differ between devices.
_SAME = 0.05
#: Tiles read at a time.
_BATCH_TILES = 16


@checked
@shared()
def attribute(
    sdata: SpatialData,
    model: Model,
    gene: str,
    *,
    section: str | None = None,
    spots: Sequence[str] | None = None,
    n_steps: int = 64,
    device: str = "auto",
    table_name: str = "table",
    key: str = "predicted",
    key_added: str | None = None,
    copy: bool = False,
) -> SpatialData | None:
    """Attribute the prediction of a gene to the inputs of the model.

    Integrated gradients [1]_ sum to the difference between the prediction and that for a baseline,
    in the units of the prediction; this is checked for every spot. An attribution shows what the
    *model* used, which may be a proxy for something else in the tissue. Negative predictions are
    explained as they were before `tl.predict` set them to 0.

    For models on embeddings the baseline is the mean training embedding (with
    ``standardize="section"`` the mean of the standardised ones), and the spot's tile, each
    sub-tile and neighbour gets one attribution. For models on pixels it is white glass, and each
    pixel gets one attribution, summed over its colours. Models of counts need more steps.

    Parameters
    ----------
    sdata
        Sections with the model's inputs (`pp.prepare`) and its predictions (`tl.predict`).
    model
        Fitted model. Attribute the bases of a stack one by one; trees have no gradient.
    gene
        Name of a gene that the model predicts.
    section, spots
        Attribute all spots of one section, or the spots with these ``obs_names``; by default all.
        Models on pixels, which take seconds per tile, need one of the two.
    n_steps
        Number of steps from the baseline to the inputs.
    {device}
    table_name
        Name of the table with the model's inputs.
    key
        Name of the table with the model's predictions, to which attributions are written.
    key_added
        Name of the slots, by default ``attribution_<gene>``.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables[key]``:

        - for models on embeddings, ``obsm[key_added]``, a data frame (n_obs, 1 to 2 + n_subtiles)
          float32 with the columns ``spot``, ``subtile_1`` …, and ``neighbors``, NaN for other
          spots; with neighbours also ``obsp[key_added]``, (n_obs, n_obs) CSR float32, the
          attribution of each spot (row) to each of its neighbours (columns);
        - for models on pixels, ``obsm[key_added]``, (n_obs, tile_px²) CSR float32, the pixels of
          the tile row by row; empty for other spots;
        - ``uns["stpredict"]["attribute"][key_added]``: gene, method, units, baseline, steps, and
          ``gap``, the largest relative error of their sum.

    Raises
    ------
    TypeError
        If ``model`` is no fitted model.
    ImportError
        If captum is not installed.
    KeyError
        If the gene, section, spot, or the model's inputs or predictions are missing.
    ValueError
        If the model is a stack or trees, the gene was constant in training, ``section`` and
        ``spots`` are both given (or neither for a model on pixels), inputs or predictions are not
        the model's, ``key_added`` is invalid or the name of your own slot, or attributions miss
        their sum by more than 5 %, which more steps fix.

    References
    ----------
    .. [1] Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017.

    Examples
    --------
    {prepared}
    >>> model = stp.tl.fit_ridge(sdata)
    >>> stp.tl.predict(sdata, model)
    >>> stp.tl.attribute(sdata, model, model.genes[0], key_added="attribution")
    >>> sdata.tables["predicted"].obsm["attribution"].columns.tolist()
    ['spot', 'neighbors']
    """
    _validate.whole_number("n_steps", n_steps)
    _runtime.resolve_device(device)  # raises if there is no such device
    _attribution.require_captum()
    place = _attribution.check(model, gene)  # column of the gene
    opened = open_table(sdata, table_name, copy=copy)
    predicted = _predictions(opened, key, gene)
    name = _keys.attribution(gene) if key_added is None else key_added
    own = recorded(predicted, "attribute")
    check_slot(predicted, "obsm", name, own=own)
    check_slot(predicted, "obsp", name, own=own)
    rows = select_rows(opened, section, spots, required=model.uses_pixels)
    options: dict[str, Any] = {"place": place, "n_steps": int(n_steps), "device": device}
    step = model.recipe.tiles
    slots: dict[str, Any]
    if step is not None:
        tiles = stream_tiles(
            restrict_sections(sections_for_tiles(opened, step), rows),
            step,
            description="attribute",
            batch_size=_BATCH_TILES,
        )
        parts = list(_attribution.of_tiles(model, tiles, **options))
        slots = {"obsm": _attribution.pixel_slot(parts, len(predicted))}
    else:
        inputs = embedding_inputs(opened, model)
        batches = _attribution.of_embeddings(model, inputs, rows, **options)
        parts = _with_progress(batches, len(rows))
        slots = _attribution.context_slots(parts, predicted.obs_names, inputs)
    values = np.asarray(predicted.X[:, predicted.var_names.get_loc(gene)])
    _check_same(parts, values, model, key)
    gap = _check_complete(parts, int(n_steps), spread=float(values.std()))
    for slot, attributions in slots.items():
        getattr(predicted, slot)[name] = attributions
    others = recorded(predicted, "attribute")  # of other genes
    record(predicted, "attribute", **{**others, name: _record(model, gene, n_steps, gap)})
    return opened.sdata if copy else None


def _predictions(spots: SpotTable, key: str, gene: str) -> AnnData:
    """The table of predictions, which must have the gene, and the rows of the measured one."""
    predicted = open_table(spots.sdata, key).table
    same_rows = predicted.obs_names.equals(spots.table.obs_names)
    if gene not in predicted.var_names or not same_rows:
        difference = "other spots than the table" if not same_rows else f"no gene {gene!r}"
        raise ValueError(f"tables[{key!r}] has {difference}: run stp.tl.predict(sdata, model)")
    return predicted


def _with_progress(batches: Iterable[Attributed], n_spots: int) -> list[Attributed]:
    parts = []
    with progress_bar(total=n_spots, description="attribute", unit="spot") as bar:
        for part in batches:
            parts.append(part)
            bar.update(len(part.rows))
    return parts


def _check_same(
    parts: list[Attributed], values: NDArray[np.float32], model: Model, key: str
) -> None:
    """Require that the attributed prediction is the one in the table."""
    rows = np.concatenate([part.rows for part in parts])
    attributed = np.concatenate([part.predicted for part in parts])
    # attributions explain the prediction before it is set to 0 where it is negative
    attributed = np.maximum(attributed, 0) if model.nonnegative else attributed
    difference = np.abs(attributed - values[rows])
    if not (difference <= _SAME * values.std() + 1e-4 * np.abs(values).max()).all():
        raise ValueError(
            f"tables[{key!r}] holds other predictions than this model's ({model.method}): run "
            "stp.tl.predict(sdata, model) first"
        )


def _check_complete(parts: list[Attributed], n_steps: int, *, spread: float) -> float:
    """Require that attributions sum to what they explain; return the largest relative gap."""
    gap = _attribution.largest_gap(parts, spread=spread)
    if not gap <= _TOLERANCE:
        raise ValueError(
            f"with {n_steps} steps, attributions miss the difference from the baseline by up to "
            f"{gap:.1%}: increase n_steps, for example to {4 * n_steps}"
        )
    return gap


def _record(model: Model, gene: str, n_steps: int, gap: float) -> dict[str, Any]:
    """What is recorded in ``uns``."""
    step = model.recipe.tiles
    baseline: dict[str, Any] = {"baseline": "mean training embedding"}
    if model.recipe.standardize == "section":
        baseline = {"baseline": "mean training embedding, standardised within each section"}
    if step is not None:
        baseline = {"baseline": "white", "tile_um": step.tile_um, "tile_px": step.tile_px}
        baseline["normalized"] = step.stain is not None
    scalars = {"gene": gene, "method": model.method, "units": model.units}
    return {**scalars, "n_steps": int(n_steps), "gap": gap, **baseline}
