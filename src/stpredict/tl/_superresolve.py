"""Predict expression at positions that are closer than spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._provenance import record, recorded
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spacing import spacing_of
from stpredict._sdata._spot_table import open_table, require_key
from stpredict.pp._prepare import prepare
from stpredict.tl._fitting._docs import shared
from stpredict.tl._predict import predict
from stpredict.tl._superresolution._element import as_sections
from stpredict.tl._superresolution._inputs import check_model, check_resolution, read_spot_values
from stpredict.tl._superresolution._match import match_spots
from stpredict.tl._superresolution._positions import fine_positions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spacing import Spacing
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.tl._superresolution._positions import FinePositions

_RECORD = "superresolve"


@checked
@shared()
def superresolve(
    sdata: SpatialData,
    model: Model,
    *,
    resolution_um: float,
    match: str | None = _keys.PREDICTED,
    encoder: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor] | None = None,
    weights: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    table_name: str = "table",
    key_added: str = "superresolved",
    copy: bool = False,
) -> SpatialData | None:
    """Predict expression at positions that are closer to each other than the spots.

    Positions lie on a square lattice over the area that the spots cover. Each is predicted like a
    spot: from a tile of the size of training and, for models with neighbours, from tiles at the
    distances of training. Where the spot itself was predicted or measured, the values are shifted
    so that their mean over the spot is the spot's value.

    Parameters
    ----------
    sdata
        Sections with images, shapes and a table; they need not be prepared for the model.
    model
        Fitted model.
    resolution_um
        Distance between neighbouring positions in µm, at most 0.7 of that between spots; for models
        with neighbours, also at most 0.55 of that in training.
    match
        Table with the values of the spots: predictions with this model, or measured expression, of
        which the model's layer is used. Spots that it lacks are not matched; None matches none.
    encoder, weights
        Encoder, if the model was trained with a module or function of your own; local file with its
        weights, instead of the hub.
    batch_size
        Tiles at a time.
    {device}
    table_name, key_added, copy
        Name of the table whose shapes are the spots; name of the table to write, which is also the
        ending of the new shapes' names; and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes:

        - ``shapes["<section>_<key_added>"]``, circles with the resolution as diameter, in the
          coordinate system of the section's image in µm;
        - ``tables[key_added]``, which annotates them: ``X`` (n_positions, n_genes) float32 in the
          units of the model, not negative where :func:`stpredict.tl.predict` is not;
          ``obs["spot"]``, the nearest spot; ``obsm["spatial"]``, x and y in pixels;
          ``var["training_mean"]``; for ensembles ``layers["std"]``, the spread before matching; for
          calibrated models ``obs["familiarity"]``. Intervals hold for spots only.

    Warns
    -----
    UserWarning
        If the tiles look unlike those of training, as :func:`stpredict.tl.predict` does.

    Raises
    ------
    KeyError
        If there is no such table, it lacks genes or the layer of the model, or ``encoder`` is
        missing.
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If the resolution is too coarse or gives too many positions, the model's features or
        neighbours cannot be computed at new positions, a section has no image, the matched table is
        in other units or has none of the spots, an option is out of range, or ``key_added`` is
        invalid or the name of something else.

    Notes
    -----
    The mean over a spot is that of the positions within its radius; where there is none, the value
    at the nearest position. Spots that touch each other, such as the bins of Visium HD, consist of
    all positions that are nearest to them. The shift is constant over the spot and falls linearly
    to 0 at half the distance between spots, because the error of a measured spot says little about
    the tissue next to it. Where values may not be negative, they are cut at 0, and the shift of the
    others makes up for it.

    Examples
    --------
    {prepared}
    >>> model = stp.tl.fit_ridge(sdata)
    >>> stp.tl.predict(sdata, model)
    >>> stp.tl.superresolve(sdata, model, resolution_um=50)
    >>> sdata.tables["superresolved"].n_obs > 3 * sdata.tables["predicted"].n_obs
    True
    >>> stp.pl.prediction(sdata, model.genes[0], key="superresolved").shape
    (2, 2)
    """
    _validate.positive("resolution_um", resolution_um, unit="µm")
    _validate.whole_number("batch_size", batch_size)
    _runtime.resolve_device(device)  # raises if there is no such device
    spots = open_table(sdata, table_name, copy=copy)
    _check_names(spots, key_added)
    spacings = {section.name: spacing_of(section.centers_um) for section in spots.sections}
    n_spots = {section.name: len(section.rows) for section in spots.sections}
    check_resolution(resolution_um, spacings, n_spots)
    check_model(model, resolution_um)
    if match is not None:
        require_key(match, spots.sdata.tables, what="tables")
        spot_values = read_spot_values(spots, model, match)
    positions = {
        section.name: _positions_of(section, spacings[section.name], resolution_um)
        for section in spots.sections
    }
    names = {name: f"{name}_{key_added}" for name in spots.section_names}
    fine = as_sections(spots, positions, names, resolution_um=resolution_um)
    prepare(fine, model, encoder=encoder, weights=weights, batch_size=batch_size, device=device)
    predict(fine, model, device=device, key_added=key_added)
    if match is not None:
        opened = open_table(fine, key_added)
        for section, part in zip(spots.sections, opened.sections, strict=True):
            opened.table.X[part.rows] = match_spots(
                opened.table.X[part.rows],
                spot_values[section.rows],
                positions[section.name],
                radius_um=section.radius_um,
                pitch_um=spacings[section.name].pitch_um,
                nonnegative=model.nonnegative,
            )
    record(
        fine.tables[key_added],
        _RECORD,
        resolution_um=float(resolution_um),
        match=match,
        table_name=table_name,
        sections=list(names),
    )
    _write(spots, fine, key_added)
    info(f"superresolve: {fine.tables[key_added].n_obs} positions every {resolution_um:g} µm")
    return spots.sdata if copy else None


def _check_names(spots: SpotTable, key_added: str) -> None:
    """Require names of a new table and new shapes, or of those that an earlier call wrote."""
    sdata = spots.sdata
    check_new_table(sdata, key_added)
    is_own = key_added in sdata.tables and recorded(sdata.tables[key_added], _RECORD)
    if key_added in sdata.tables and not is_own:
        raise ValueError(
            f"tables[{key_added!r}] holds predictions of spots: give another key_added="
        )
    taken = [name for section in spots.section_names if (name := f"{section}_{key_added}") in sdata]
    if taken and not is_own:
        raise ValueError(
            f"the object has elements {_validate.listing(taken)} already: give another key_added="
        )


def _positions_of(section: Section, spacing: Spacing, resolution_um: float) -> FinePositions:
    """Fine positions of a section; each spot must have one."""
    size_um = section.mpp * np.array(section.shape_yx[::-1])
    positions = fine_positions(section.centers_um, spacing, resolution_um, size_um=size_um)
    n_spots = len(section.rows)
    n_without = n_spots - len(np.unique(positions.spot))
    if n_without:
        raise ValueError(
            f"{n_without} of {n_spots} spots of section {section.name!r} have no position that is "
            "nearer to them than to others: use a smaller resolution_um="
        )
    return positions


def _write(spots: SpotTable, fine: SpatialData, key_added: str) -> None:
    """Move the shapes and the table to the user's object."""
    table = fine.tables[key_added]
    # intervals and reliable genes were calibrated on spots; the graph is an input of the model
    for layer in (_keys.LOWER, _keys.UPPER):
        table.layers.pop(layer, None)
    table.var = table.var.drop(columns=_keys.RELIABLE, errors="ignore")
    for slot in (_keys.CONNECTIVITIES, _keys.DISTANCES):
        table.obsp.pop(slot, None)
    table.uns.pop("spatial_neighbors", None)
    for name, element in [*fine.shapes.items(), (key_added, table)]:
        if name in spots.sdata:  # SpatialData warns of overwritten elements
            del spots.sdata[name]
        spots.sdata[name] = element
