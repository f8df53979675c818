"""Predict expression as a new table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from stpredict import _runtime
from stpredict._arguments import checked
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spot_table import open_table
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._inputs import prediction_inputs
from stpredict.tl._prediction._genes import GeneSelection
from stpredict.tl._prediction._table import Predictions, familiarity_of, predicted_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
@shared()
def predict(
    sdata: SpatialData,
    model: Model,
    *,
    genes: Sequence[str] | None = None,
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
    genes
        Genes to predict, of those of the model; by default all.
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

        - ``X`` (n_obs, n_genes) float32, ``genes`` in the units of the model's layer. If these
          cannot be negative (counts, and ``log1p`` of counts), predictions and intervals below 0
          are set to 0, and ``uns["stpredict"]["predict"]["minimum"]`` is 0;
        - ``layers["std"]``, the standard deviation over members of ensembles and stacks;
        - ``var["training_mean"]``, NaN where a published model does not report it;
        - for calibrated models (:func:`stpredict.tl.calibrate`) ``layers["lower"]`` and
          ``layers["upper"]``, the interval of every value (float32, NaN for genes without one and
          in unfamiliar sections), ``var["reliable"]`` (nullable boolean, missing if a section is
          unfamiliar) and ``obs["familiarity"]`` (float32, 0 to 1: how similar the spot's tile is to
          those of training). ``uns["stpredict"]["predict"]["interval_notes"]`` says in which
          sections intervals are absent or wider, and why.

        With ``space="factors"``, only ``X`` (n_obs, n_factors) and ``std``.

    Warns
    -----
    UserWarning
        If the tiles of a section look unlike those that a calibrated model was trained on: a median
        familiarity below the model's limit, 0.1 or less. If features are standardised within a
        section of fewer than 60 spots.

    Raises
    ------
    KeyError
        If the model's inputs are missing.
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If inputs contain NaN or differ from training, the model lacks a gene, it has no factors or
        ``genes`` is given with them, the device is not available, or ``key_added`` is invalid or
        the name of another element or of your own table.

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
    if genes is not None and space == "factors":
        raise ValueError('genes= selects genes, which space="factors" does not predict: omit one')
    selection = GeneSelection.of(model, genes)
    described, predictor = selection.described, selection.predictor
    inputs = prediction_inputs(spots, predictor)
    values, spread = predictor.predict_inputs(inputs, space=space, device=device)
    if genes is not None:  # a stack predicts all of its genes
        values = values[:, selection.columns]
        spread = None if spread is None else spread[:, selection.columns]
    familiarity = familiarity_of(spots, model) if space == "genes" else None
    predictions = Predictions(np.arange(len(values)), values, spread, familiarity)
    predicted = predicted_table(spots, described, predictions, space=space)
    spots.add_table(key_added, predicted)
    return spots.sdata if copy else None
