"""Predict expression at positions that are closer than spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.pp._prepare import prepare
from stpredict.tl._adaptation._table import Correction, correct_positions
from stpredict.tl._fitting._docs import shared
from stpredict.tl._predict import predict
from stpredict.tl._superresolution._fine import FineSections
from stpredict.tl._superresolution._inputs import check_model, read_match

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from spatialdata import SpatialData

    from stpredict.models import Model


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
    key_added: str = _keys.SUPERRESOLVED,
    copy: bool = False,
) -> SpatialData | None:
    """Predict expression at positions that are closer to each other than the spots.

    Positions lie on a square lattice over the area that the spots cover. Each is predicted like a
    spot: from a tile of the size of training and, for models with neighbours, from tiles at the
    distances of training. Where the spot itself was predicted or measured, the values are shifted
    so that their mean over the spot is the spot's value. With a table of
    :func:`stpredict.tl.denoise` or :func:`stpredict.tl.adapt`, they are corrected by the measured
    spots of the section instead, as spots are there.

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
        which the model's layer is used. Spots that it lacks are not matched; None matches none. For
        a table of `tl.denoise` or `tl.adapt`, the spots must be prepared for the model.
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
          calibrated models ``obs["familiarity"]``. If corrected by measured spots,
          ``layers["std"]``, ``["lower"]`` and ``["upper"]`` of a spot that would be measured there;
          else no intervals, which hold for spots only.

    Warns
    -----
    UserWarning
        If the tiles look unlike those of training, as :func:`stpredict.tl.predict` does.

    Raises
    ------
    KeyError
        If there is no such table, it lacks genes or the layer of the model, or ``encoder`` or the
        embedding of spots that correct the positions is missing.
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

    The correction by measured spots is that of :func:`stpredict.tl.adapt`: a position in the centre
    of a spot with noise that is not known, or that was not measured, gets the value of the spot.

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
    fine = FineSections.place(spots, resolution_um, key_added)
    check_model(model, resolution_um)
    matched = None if match is None else read_match(spots, model, match, device=device)
    positions = fine.open()
    sdata = positions.sdata
    prepare(sdata, model, encoder=encoder, weights=weights, batch_size=batch_size, device=device)
    predict(sdata, model, device=device, key_added=key_added)
    predicted = sdata.tables[key_added]
    is_corrected = isinstance(matched, Correction)
    if isinstance(matched, Correction):
        correct_positions(matched, open_table(sdata), predicted)
    elif matched is not None:
        for section, part in zip(spots.sections, positions.sections, strict=True):
            rows = np.arange(len(part.rows))
            predicted.X[part.rows] = fine.match(
                section, rows, predicted.X[part.rows], matched, nonnegative=model.nonnegative
            )
    fine.write(positions, match, intervals=is_corrected)
    info(f"superresolve: {predicted.n_obs} positions every {resolution_um:g} µm")
    return spots.sdata if copy else None
