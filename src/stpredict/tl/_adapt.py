"""Correct predictions by some measured spots of the same section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict import _keys, _runtime
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spot_table import open_table
from stpredict.tl._adaptation._measured import measured_rows
from stpredict.tl._adaptation._table import Correction, corrected_table
from stpredict.tl._fitting._docs import shared

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
@shared()
def adapt(
    sdata: SpatialData,
    model: Model,
    *,
    measured: str | NDArray[np.bool_] | pd.Series,
    device: str = "auto",
    table_name: str = "table",
    key_added: str = _keys.ADAPTED,
    copy: bool = False,
) -> SpatialData | None:
    """Predict expression with the help of some measured spots of the same section.

    The model's errors in the measured spots of a section are predicted in its other spots by
    Gaussian processes over space and the embedding, and subtracted. Expression of other spots is
    not read. Each section is corrected by its own measured spots.

    Parameters
    ----------
    sdata
        Sections prepared for the model (`pp.prepare`), with the model's layer in measured spots.
    model
        Fitted model.
    measured
        Spots whose expression is used: a column of ``obs``, or a mask (n_obs,), of booleans. At
        least 5 of a section, but not all (:func:`stpredict.tl.denoise`); a section without any
        keeps the model's predictions.
    {device}
    table_name
        Name of the table with the model's inputs and the measured expression.
    key_added
        Name of the table to write.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``tables[key_added]``, as :func:`stpredict.tl.predict` does:

        - ``X`` (n_obs, n_genes) float32, in the units of the model. In measured spots, which are
          corrected by their own values, too, it is the expression without noise, as
          :func:`stpredict.tl.denoise` writes it;
        - ``layers["std"]``, the standard deviation of measured values around the prediction, with
          their noise, and ``layers["lower"]`` and ``layers["upper"]``, an interval for 90 % of them
          (float32, NaN in sections without measured spots);
        - ``obs["measured"]``: bool. :func:`stpredict.tl.evaluate` leaves these spots out.

    Raises
    ------
    KeyError
        If the column, the layer, a gene of the model or an input is missing.
    TypeError
        If ``measured`` has no booleans, or ``model`` is no fitted model.
    ValueError
        If ``measured`` has another length or index than the table, or marks no spot, all spots or
        fewer than 5 spots of a section, or spots outside the image; if the layer is in other units
        than the model's, smoothed or NaN in measured spots; if inputs differ from training, the
        device is not available, the model predicts which genes are high or does not report its
        units, or ``key_added`` is invalid or the name of something else.

    Notes
    -----
    Errors along the 12 directions in which the predictions of a section vary most, and what remains
    of each gene, have Gaussian processes of their own. Their covariance is the sum of a squared
    exponential over space, of a linear kernel over the standardised embedding of the tile, and of
    an offset of the section. Predictions are averaged over lengths of 1 to 5 distances between
    spots, and over proportions of the parts and the noise, weighted by marginal likelihood. Offsets
    of the intervals are quantiles of the errors of measured spots that are left out in turn, over
    all genes. These errors also decide by what factor, 1, 2 or 4, the variance of the processes
    counts where it exceeds its mean: it is too small far from measured spots.

    Of more than 1,600 measured spots in a section, those nearest to a block of spots are used.

    Examples
    --------
    {prepared}
    >>> model = stp.tl.fit_ridge(sdata)
    >>> sdata["table"].obs["sequenced"] = [i % 5 == 0 for i in range(sdata["table"].n_obs)]
    >>> stp.tl.adapt(sdata, model, measured="sequenced")
    >>> sdata["adapted"].layers["std"].shape == sdata["adapted"].shape
    True
    """
    _runtime.resolve_device(device)  # raises if there is no such device
    spots = open_table(sdata, table_name, copy=copy)
    check_new_table(spots.sdata, key_added)
    correction = Correction.read(spots, model, measured_rows(spots, measured), device=device)
    column = measured if isinstance(measured, str) else None
    spots.add_table(key_added, corrected_table(correction, column=column))
    counted = ", ".join(f"{n} in {name}" for name, n in correction.n_measured.items())
    info(f"adapt: corrected by measured spots, {counted}")
    return spots.sdata if copy else None
