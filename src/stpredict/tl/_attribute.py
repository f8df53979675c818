"""What the prediction of a gene is due to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from stpredict import _keys, _validate
from stpredict._sdata import _pixels, _provenance, _recipe, _sections
from stpredict._settings import settings
from stpredict.models import _attribution
from stpredict.tl._attribute_slots import maps, of_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model
    from stpredict.models._attribution import Attributed

#: Largest relative gap at which attributions count as complete.
_TOLERANCE = 0.05
#: Share of a gene's spread by which a prediction may differ between devices.
_SAME = 0.05
#: Tiles read at a time.
_TILES = 16


def attribute(
    sdata: SpatialData,
    model: Model,
    gene: str,
    *,
    section: str | None = None,
    spots: Sequence[str] | None = None,
    n_steps: int = 64,
    device: str = "auto",
    copy: bool = False,
) -> SpatialData | None:
    """Attribute the prediction of a gene to what the model looked at.

    Integrated gradients [1]_ from a baseline to the inputs. Their sum is what the prediction
    differs by from that of the baseline, in the units of the prediction; this is checked for every
    spot. A share says what the *model* leaned on, which may stand for something else in the tissue.

    For models on embeddings the baseline is the mean training embedding in the place of the
    spot's tile, its sub-tiles and its neighbours: each share is what is due to one of them. For
    models on pixels it is white glass, a tile without tissue; each share is a pixel's, over its
    three colours. Of models of factors, the gene is what their factors make of it. Of models of
    counts, it is the expected counts per 10,000, as `predict` gives them, which multiply where
    shares add up: for large counts, more steps are needed.

    Parameters
    ----------
    sdata
        Sections with the model's inputs (`pp.prepare`) and its predictions (`tl.predict`).
    model
        The fitted model. Stacks are attributed base by base; trees have no gradient.
    gene
        Name of a gene that the model predicts.
    section
        Attribute all spots of one section.
    spots
        Attribute these spots, named as in ``obs_names``. By default all; models on pixels, which
        take seconds per tile, need either ``section`` or ``spots``.
    n_steps
        Steps from the baseline to the inputs.
    device
        ``"auto"``: cuda, then mps, then cpu.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes to ``tables["predicted"]``, in the place of earlier attributions of the gene:

        - of models on embeddings, ``obsm["attribution_<gene>"]``, a data frame (n_obs, 1 to 2 +
          n_subtiles) float32 with the columns ``spot``, ``subtile_1`` …, and ``neighbors``, NaN
          for spots that were left out; and, with neighbours, ``obsp["attribution_<gene>"]``,
          (n_obs, n_obs) CSR float32, for each spot (row) the share of each of its neighbours
          (columns), which together are ``neighbors``;
        - of models on pixels, ``obsm["attribution_<gene>"]``, (n_obs, tile_px²) CSR float32, the
          pixels of the tile row by row; empty for spots that were left out;
        - ``uns["stpredict"]["attribute"]["attribution_<gene>"]``: gene, method, units, baseline,
          steps, and ``gap``, by how much the sum of the shares misses what the prediction differs
          by from the baseline's, at most: relative to that difference, or to the standard deviation
          of the gene's predictions where that is larger.

        Characters of a gene's name that SpatialData allows in no name are underscores.

    Raises
    ------
    ImportError
        If captum is missing.
    KeyError
        If the model does not predict the gene, there is no such section or spot, or the model's
        inputs or predictions are missing.
    ValueError
        If the model is a stack or trees; if the gene was constant in training; if ``section`` and
        ``spots`` are both given, or neither for a model on pixels; if ``tables["predicted"]`` is
        not the model's; if inputs were made differently than in training; if shares do not sum to
        the difference within 5 %, which more steps mend. Then nothing is written.

    References
    ----------
    .. [1] Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017.

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.tl.attribute(sdata, model, "ERBB2")  # doctest: +SKIP
    >>> sdata.tables["predicted"].obsm["attribution_ERBB2"].mean()  # doctest: +SKIP
    """
    _attribution.require_captum()
    place = _attribution.check(model, gene)
    if isinstance(n_steps, bool) or not isinstance(n_steps, int | np.integer) or n_steps < 1:
        raise ValueError(f"n_steps must be a whole number of at least 1: {n_steps!r}")
    sdata = _sections.copy_of(sdata) if copy else sdata
    table, predicted = _sections.table_of(sdata), _predicted(sdata, gene)
    rows = _rows(table, section, spots, needed=model.uses_pixels)
    how: dict[str, Any] = {"place": place, "n_steps": int(n_steps), "device": device}
    if model.uses_pixels:
        tiles = _pixels.some_tiles(sdata, model, rows, description="attribute", batch_size=_TILES)
        parts = list(_attribution.of_tiles(model, tiles, **how))
        stored = {"obsm": maps(parts, table.n_obs)}
    else:
        inputs = _recipe.model_inputs(table, model)
        parts = _with_progress(_attribution.of_embeddings(model, inputs, rows, **how), len(rows))
        stored = of_context(parts, table, inputs)
    values = np.asarray(predicted.X[:, predicted.var_names.get_loc(gene)])
    _check_same(parts, values, model)
    gap = _check_complete(parts, int(n_steps), spread=float(values.std()))
    key = _keys.attribution(gene)
    for slots, shares in stored.items():
        getattr(predicted, slots)[key] = shares
    _provenance.record(
        predicted,
        "attribute",
        **{**_provenance.recorded(predicted, "attribute"), key: _record(model, gene, n_steps, gap)},
    )
    return sdata if copy else None


def _predicted(sdata: SpatialData, gene: str) -> AnnData:
    """The table of predictions, which must have the gene, and the rows of the measured one."""
    table, predicted = _sections.table_of(sdata), _sections.table_of(sdata, _keys.PREDICTED)
    if gene not in predicted.var_names or not predicted.obs_names.equals(table.obs_names):
        what = f"no {gene!r}" if gene not in predicted.var_names else "other spots than the table"
        raise ValueError(
            f"tables[{_keys.PREDICTED!r}] has {what}: run stp.tl.predict(sdata, model) with the "
            "model whose prediction is to be attributed"
        )
    return predicted


def _rows(
    table: AnnData, section: str | None, spots: Sequence[str] | None, *, needed: bool
) -> NDArray[np.intp]:
    """Rows to attribute, in order."""
    if section is not None and spots is not None:
        raise ValueError("give section= or spots=, not both")
    if spots is not None:
        names = [spots] if isinstance(spots, str) else list(spots)
        rows = table.obs_names.get_indexer(names)
        absent = [name for name, row in zip(names, rows, strict=True) if row < 0]
        if absent or not names:
            raise KeyError(
                f"no spots {_validate.listing(map(repr, absent))}; spots: "
                f"{_validate.listing(table.obs_names, most=4)}"
            )
        return np.unique(rows)
    if section is not None:
        known = _sections.section_names(table)
        if section not in known:
            raise KeyError(f"no section {section!r}; sections: {_validate.listing(known)}")
        return np.flatnonzero(_sections.region_of(table) == section)
    if needed:
        raise ValueError(
            "of a model on pixels, choose what to attribute: "
            f"spots=[{str(table.obs_names[0])!r}, …], or section="
        )
    return np.arange(table.n_obs)


def _with_progress(parts: Any, n: int) -> list[Attributed]:
    found = []
    with tqdm(total=n, desc="attribute", unit="spot", disable=settings.verbosity < 1) as bar:
        for part in parts:
            found.append(part)
            bar.update(len(part.rows))
    return found


def _check_same(parts: list[Attributed], values: NDArray[np.float32], model: Model) -> None:
    """Require that what was attributed is what the table holds."""
    rows = np.concatenate([part.rows for part in parts])
    difference = np.abs(np.concatenate([part.predicted for part in parts]) - values[rows])
    if not (difference <= _SAME * values.std() + 1e-4 * np.abs(values).max()).all():
        raise ValueError(
            f"tables[{_keys.PREDICTED!r}] does not hold this model's predictions ({model.method}), "
            "or its inputs have changed since: run stp.tl.predict(sdata, model) first"
        )


def _check_complete(parts: list[Attributed], n_steps: int, *, spread: float) -> float:
    """Require that shares sum to what is to be explained; give the largest relative gap."""
    gap = _attribution.largest_gap(parts, spread=spread)
    if not gap <= _TOLERANCE:
        raise ValueError(
            f"with {n_steps} steps, the shares miss what the prediction differs by from the "
            f"baseline's by up to {gap:.1%}, more than {_TOLERANCE:.0%}: increase n_steps, to "
            f"{4 * n_steps} say"
        )
    return gap


def _record(model: Model, gene: str, n_steps: int, gap: float) -> dict[str, Any]:
    how = {
        "gene": gene,
        "method": model.method,
        "units": model.units,
        "n_steps": int(n_steps),
        "gap": gap,
    }
    if not model.uses_pixels:
        return {**how, "baseline": "mean training embedding"}
    tiles = model.recipe["tiles"]
    return {
        **how,
        "baseline": "white",
        "tile_um": tiles["tile_um"],
        "tile_px": tiles["tile_px"],
        "normalized": "stain" in tiles,
    }
