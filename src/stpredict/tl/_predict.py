"""Predictions as a new table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel, get_table_keys

from stpredict import _keys, _provenance, _recipe, _sections

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.models import Model


def predict(
    sdata: SpatialData, model: Model, *, device: str = "auto", copy: bool = False
) -> SpatialData | None:
    """Predict expression in every spot.

    Parameters
    ----------
    sdata
        Sections prepared for the model (`pp.prepare`).
    model
        The fitted model.
    device
        ``"auto"``: cuda, then mps, then cpu.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``tables["predicted"]``, which annotates the same shapes: ``X`` (n_obs, n_genes)
        float32 in the units of the layer the model was trained on (``log1p`` values can fall
        slightly below 0: nothing is cut off), ``layers["ridge"]`` the same from ridge regression
        on the same embedding, ``var["training_mean"]``, and the table's ``obs``, positions and
        spatial graph. Genes are the model's, whatever genes the table has.

    Raises
    ------
    KeyError
        If the model's inputs are missing.
    ValueError
        If they were made differently than in training, or have NaN.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.load("deepspot_her2")  # doctest: +SKIP
    >>> stp.tl.predict(sdata, model)  # doctest: +SKIP
    >>> sdata.tables["predicted"].to_df()["ERBB2"]  # doctest: +SKIP
    """
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    inputs = _recipe.model_inputs(table, model)
    values, spread = model.predict_inputs(inputs, device=device)
    predicted = AnnData(
        X=values,
        obs=table.obs.copy(),
        var=pd.DataFrame(
            {"training_mean": model.targets.mean, "constant": model.targets.constant},
            index=pd.Index(model.genes),
        ),
    )
    if spread is not None:
        predicted.layers[_keys.STD] = spread
    if model.ridge is not None:
        baseline = model.ridge.predict(model.inputs.transform(inputs.center))
        predicted.layers[_keys.RIDGE] = baseline
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
        units=model.units,
        layer=model.recipe["layer"],
        training_sections=model.training["sections"],
        ridge_alpha=None if model.ridge is None else model.ridge.alpha,
    )
    region, region_key, instance_key = get_table_keys(table)
    # not TableModel.parse(overwrite_metadata=…): obs is already right
    sdata.tables[_keys.PREDICTED] = TableModel.parse(
        predicted, region=region, region_key=region_key, instance_key=instance_key
    )
    return sdata if copy else None
