"""Predictions as a new table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys, _validate
from stpredict._sdata import _pixels, _provenance, _recipe, _sections
from stpredict.models._stack import StackInputs, baseline
from stpredict.tl._certainty import add_certainty

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.models import Model


def predict(
    sdata: SpatialData,
    model: Model,
    *,
    space: Literal["genes", "factors"] = "genes",
    device: str = "auto",
    copy: bool = False,
) -> SpatialData | None:
    """Predict expression in every spot.

    Models on pixels read the tiles from the images, as they predict them.

    Parameters
    ----------
    sdata
        Sections prepared for the model (`pp.prepare`).
    model
        The fitted model.
    space
        ``"genes"``, or the factors that a model fitted with ``targets="svd"``, ``"nmf"`` or
        ``"autoencoder"`` predicts on the way to genes.
    device
        ``"auto"``: cuda, then mps, then cpu.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``tables["predicted"]``, which annotates the same shapes: ``X`` (n_obs, n_genes)
        float32 in the units of the layer the model was trained on (``log1p`` values can fall
        slightly below 0: nothing is cut off), ``layers["std"]`` the standard deviation over the
        members of an ensemble, for methods that are one, or over the bases of a stack,
        ``layers["ridge"]`` the same as ``X`` from ridge regression on the same embedding (of models
        on pixels, on the texture encoder's of the same tiles; of a stack, that of its first base),
        ``var["training_mean"]`` (NaN where published weights do not tell it), and the table's
        ``obs``, positions and spatial graph. Genes are the model's, whatever genes the table has.
        Of a calibrated model (:func:`stpredict.tl.calibrate`) also ``layers["lower"]`` and
        ``layers["upper"]``, the interval of every value (float32, NaN for genes without one),
        ``var["reliable"]`` (bool) and ``obs["familiarity"]`` (float32, 0 to 1: how much the spot's
        tile looks like those of training).
        With ``space="factors"``, ``X`` is (n_obs, n_factors), and ``layers["ridge"]``,
        ``var["training_mean"]`` and what calibration adds are left out.

    Warns
    -----
    UserWarning
        If the tiles of a section look unlike those a calibrated model was trained on.

    Raises
    ------
    KeyError
        If the model's inputs are missing.
    ValueError
        If they were made differently than in training, or have NaN; if factors are asked for of
        a model that predicts genes.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.load("deepspot_her2")  # doctest: +SKIP
    >>> stp.tl.predict(sdata, model)  # doctest: +SKIP
    >>> sdata.tables["predicted"].to_df()["ERBB2"]  # doctest: +SKIP
    """
    _validate.one_of("space", space, ("genes", "factors"))
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    inputs = inputs_of(sdata, model)
    values, spread = model.predict_inputs(inputs, space=space, device=device)
    predicted = AnnData(X=values, obs=table.obs.copy(), var=_described(model, space))
    if spread is not None:
        predicted.layers[_keys.STD] = spread
    ridge = baseline(model, inputs)
    if ridge is not None and space == "genes":
        predicted.layers[_keys.RIDGE] = ridge[0]
    if model.calibration is not None and space == "genes":
        add_certainty(predicted, model, inputs, _sections.region_of(table))
    for slots, kept in (
        ("obsm", [_keys.SPATIAL]),
        ("obsp", [_keys.CONNECTIVITIES, _keys.DISTANCES]),
    ):
        for key in kept:
            if key in getattr(table, slots):
                getattr(predicted, slots)[key] = getattr(table, slots)[key].copy()
    if "spatial_neighbors" in table.uns:
        predicted.uns["spatial_neighbors"] = dict(table.uns["spatial_neighbors"])
    _provenance.record(
        predicted,
        "predict",
        method=model.method,
        units=model.units if space == "genes" else "factor",
        layer=model.recipe["layer"],
        training_sections=model.training["sections"],
        level=None if model.calibration is None else model.calibration.level,
        ridge_alpha=None if ridge is None else ridge[1],
    )
    region, region_key, instance_key = get_table_keys(table)
    # not TableModel.parse(overwrite_metadata=…): obs is already right
    sdata.tables[_keys.PREDICTED] = TableModel.parse(
        predicted, region=region, region_key=region_key, instance_key=instance_key
    )
    return sdata if copy else None


def inputs_of(sdata: SpatialData, model: Model) -> Any:
    """Read what a model takes in; of a stack, what each of its bases does."""
    table = _sections.table_of(sdata)
    if model.bases:
        parts = tuple(inputs_of(sdata, base) for base in model.bases)
        return StackInputs(model, parts, _sections.region_of(table))
    if model.uses_pixels:
        return _pixels.model_tiles(sdata, model)
    return _recipe.model_inputs(table, model)


def _described(model: Model, space: str) -> pd.DataFrame:
    """Genes, or factors, and what is known of them."""
    if space == "factors" and model.targets.outputs is not None:
        return pd.DataFrame(index=pd.Index(model.targets.outputs))
    # the scaler of published weights may be centred on something else
    known = model.training.get("knows_mean", True)
    mean = model.targets.mean if known else np.full_like(model.targets.mean, np.nan)
    return pd.DataFrame(
        {"training_mean": mean, "constant": model.targets.constant},
        index=pd.Index(model.genes),
    )
