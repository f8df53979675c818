"""Remove counting noise from the expression of measured sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _keys, _runtime
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spot_table import open_table
from stpredict.tl._adaptation._measured import all_rows
from stpredict.tl._adaptation._table import Correction, corrected_table
from stpredict.tl._fitting._docs import shared

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
@shared()
def denoise(
    sdata: SpatialData,
    model: Model,
    *,
    device: str = "auto",
    table_name: str = "table",
    key_added: str = _keys.DENOISED,
    copy: bool = False,
) -> SpatialData | None:
    """Estimate the expression of measured spots without their counting noise.

    The model predicts each spot from its tile, and the errors of all spots of the section correct
    the prediction, as in :func:`stpredict.tl.adapt`, which takes sections with some measured spots.
    For expression between the spots, use :func:`stpredict.tl.superresolve` with
    ``match="denoised"``.

    Parameters
    ----------
    sdata
        Sections prepared for the model (`pp.prepare`), with the model's layer in all spots.
    model
        Fitted model. One that was trained on these sections has seen their noise.
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

        - ``X`` (n_obs, n_genes) float32, in the units of the model;
        - ``layers["std"]``, the standard deviation of another measurement of the same spot around
          ``X``, with its noise, and ``layers["lower"]`` and ``layers["upper"]``, an interval for
          90 % of such measurements (float32);
        - ``obs["measured"]``, True: :func:`stpredict.tl.evaluate` scores none of these spots, and
          no function takes the table for measured expression.

    Raises
    ------
    KeyError
        If the layer, a gene of the model or an input is missing.
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If a section has fewer than 5 spots, or spots outside the image; if the layer is in other
        units than the model's, smoothed or NaN; if inputs differ from training, the device is not
        available, the model predicts which genes are high or does not report its units, or
        ``key_added`` is invalid or the name of something else.

    Notes
    -----
    Gaussian processes of the errors are those of :func:`stpredict.tl.adapt`. What they leave is
    noise, and signal of the single spot. For models of log-normalised counts that are in ``X``, the
    variance of the noise is that of Poisson counts, plus that of a dispersion: the first quartile
    over genes of what is needed to explain the rest. Of the rest of a spot, the share of the
    variance that exceeds the noise is kept, along each of the 12 directions and in what remains of
    each gene. For other layers, nothing of the rest is kept.

    Examples
    --------
    {prepared}
    >>> model = stp.tl.fit_ridge(sdata)
    >>> new = stp.datasets.phantom(1, seed=1)
    >>> stp.pp.prepare(new, model)
    >>> stp.tl.denoise(new, model)
    >>> bool(new["denoised"].obs["measured"].all())
    True
    """
    _runtime.resolve_device(device)  # raises if there is no such device
    spots = open_table(sdata, table_name, copy=copy)
    check_new_table(spots.sdata, key_added)
    correction = Correction.read(spots, model, all_rows(spots), device=device)
    spots.add_table(key_added, corrected_table(correction))
    info(f"denoise: {spots.table.n_obs} spots, {len(model.genes)} genes")
    return spots.sdata if copy else None
