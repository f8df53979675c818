"""Predict expression as a new table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._log import warn
from stpredict._sdata._provenance import record
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spot_table import open_table
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._inputs import prediction_inputs, tile_embedding

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model
    from stpredict.uncertainty import Calibration

#: Median familiarity of a section below which `predict` warns and writes no intervals: those of
#: 90 % covered 58 % of such a section of another patient. Sections of HER2ST predicted from others
#: of their tumour reach 0.3 to 0.6; 10 % more haematoxylin and 10 % less eosin give 0; blur to 40 %
#: of the resolution gives 0.2 and goes without a warning.
_UNFAMILIAR = 0.1


@checked
@shared()
def predict(
    sdata: SpatialData,
    model: Model,
    *,
    space: Literal["genes", "factors"] = "genes",
    device: str = "auto",
    table_name: str = "table",
    key_added: str = "predicted",
    copy: bool = False,
) -> SpatialData | None:
    """Predict expression in every spot.

    Models on pixels read the tiles from the images while they predict. To draw predictions with
    squidpy, export the table with :func:`stpredict.io.to_anndata`.

    Parameters
    ----------
    sdata
        Sections prepared for the model (`pp.prepare`).
    model
        Fitted model.
    space
        ``"genes"``, or the ``"factors"`` that a model of factors turns into genes.
    {device}
    table_name
        Name of the table with the model's inputs.
    key_added
        Name of the table to write; give each model its own.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``tables[key_added]``, which annotates the same shapes and has the same ``obs``,
        positions and neighbourhood graph:

        - ``X`` (n_obs, n_genes) float32, the model's genes in the units of its layer. If these
          cannot be negative (counts, and ``log1p`` of counts), predictions and intervals below 0
          are set to 0, and ``uns["stpredict"]["predict"]["minimum"]`` is 0;
        - ``layers["std"]``, the standard deviation over members of ensembles and stacks;
        - ``var["training_mean"]``, NaN where a published model does not report it;
        - for calibrated models (:func:`stpredict.tl.calibrate`) ``layers["lower"]`` and
          ``layers["upper"]``, the interval of every value (float32, NaN for genes without one and
          in unfamiliar sections), ``var["reliable"]`` (nullable boolean, missing if a section is
          unfamiliar) and ``obs["familiarity"]`` (float32, 0 to 1: how similar the spot's tile is to
          those of training).

        With ``space="factors"``, only ``X`` (n_obs, n_factors) and ``std``.

    Warns
    -----
    UserWarning
        If the tiles of a section look unlike those that a calibrated model was trained on: a median
        familiarity below 0.1.

    Raises
    ------
    KeyError
        If the model's inputs are missing.
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If inputs contain NaN or differ from training, the model has no factors, the device is not
        available, or ``key_added`` is invalid or the name of another element or of your own table.

    Examples
    --------
    {prepared}
    >>> model = stp.tl.fit_ridge(sdata)
    >>> stp.tl.predict(sdata, model, key_added="ridge")
    >>> sdata.tables["ridge"].shape == (sdata.tables["table"].n_obs, 10)
    True
    """
    _runtime.resolve_device(device)  # raises if there is no such device
    spots = open_table(sdata, table_name, copy=copy)
    check_new_table(spots.sdata, key_added)
    inputs = prediction_inputs(spots, model)
    values, spread = model.predict_inputs(inputs, space=space, device=device)
    predicted = AnnData(X=values, obs=spots.table.obs.copy(), var=_describe_columns(model, space))
    if spread is not None:
        predicted.layers[_keys.STD] = spread
    unfamiliar: list[str] = []
    if model.calibration is not None and space == "genes":
        familiarity = model.calibration.familiarity.score(tile_embedding(spots, model))
        predicted.obs[_keys.FAMILIARITY] = familiarity
        unfamiliar = _unfamiliar_sections(familiarity, spots.section_of_row)
        is_familiar = ~np.isin(spots.section_of_row, unfamiliar)
        _add_uncertainty(predicted, model, model.calibration, is_familiar)
    record(
        predicted,
        "predict",
        method=model.method,
        units=model.units if space == "genes" else "factor",
        layer=model.recipe.layer,
        training_sections=list(model.training.sections),
        level=None if model.calibration is None else model.calibration.level,
        unfamiliar_sections=unfamiliar or None,
        minimum=0.0 if model.nonnegative and space == "genes" else None,
    )
    spots.add_table(key_added, predicted)
    return spots.sdata if copy else None


def _describe_columns(model: Model, space: str) -> pd.DataFrame:
    """Genes with their training mean, or names of factors."""
    if space == "factors" and model.targets.outputs is not None:
        return pd.DataFrame(index=pd.Index(model.targets.outputs))
    # the scaler of a published model may be centred on something else than the mean
    mean = model.targets.mean
    return pd.DataFrame(
        {
            "training_mean": mean if model.training.knows_mean else np.full_like(mean, np.nan),
            "constant": model.targets.constant,
        },
        index=pd.Index(model.genes),
    )


def _unfamiliar_sections(familiarity: NDArray[np.float32], sections: NDArray[np.str_]) -> list[str]:
    """Sections whose tiles look unlike those of training, with a warning."""
    medians = pd.Series(familiarity).groupby(sections, sort=False).median()
    unfamiliar = medians[medians < _UNFAMILIAR]
    if not unfamiliar.empty:
        names = _validate.listing(
            f"{name} (median familiarity {value:.2f})" for name, value in unfamiliar.items()
        )
        warn(
            f"tiles of {names} look unlike those of the training sections (median about 0.5), so "
            f"that they have no intervals and var[{_keys.RELIABLE!r}] is missing: compare stain, "
            "focus and µm per pixel (stp.pl.stain, stp.pl.tiles)"
        )
    return [str(name) for name in unfamiliar.index]


def _add_uncertainty(
    predicted: AnnData, model: Model, calibration: Calibration, is_familiar: NDArray[np.bool_]
) -> None:
    """Add intervals and reliable genes, as far as tiles are familiar."""
    bounds = calibration.intervals.around(np.asarray(predicted.X))
    for name, bound in zip((_keys.LOWER, _keys.UPPER), bounds, strict=True):
        bound = np.maximum(bound, np.float32(0)) if model.nonnegative else bound
        predicted.layers[name] = np.where(is_familiar[:, None], bound, np.float32(np.nan))
    reliable = pd.array(calibration.reliable, dtype="boolean")
    if not is_familiar.all():  # a gene may be reliable only on tissue like that of training
        reliable[:] = pd.NA
    predicted.var[_keys.RELIABLE] = reliable
