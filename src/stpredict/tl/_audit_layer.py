"""Find out whether a layer was smoothed, imputed or denoised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.tl._audit._layers import SMOOTHED, UNTESTED, layer_evidence

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


@checked
def audit_layer(
    sdata: SpatialData, layer: str | None = "log1p", *, table_name: str = "table"
) -> pd.DataFrame:
    """Find out whether a layer was smoothed, imputed or denoised, by its record and its noise.

    Scores against such a layer are too high: what it has lost is what no model can predict.
    Counts of a spot are independent of those of its neighbours and of other genes, given what they
    are expected to be. The 200 most expressed genes are therefore predicted from their means over
    six neighbours and from components of the other genes, in spots that took no part in the fit.
    What remains is at least Poisson noise in counts, and as much as in counts in layers that were
    computed from counts spot by spot, for example logarithms, ranks or Pearson residuals.

    Mild smoothing is not detected: of the mean of a spot and of its three nearest neighbours
    together, at equal weight, 82 to 90 % of the noise is left. With few genes or with high counts,
    imputation may not be either.

    Parameters
    ----------
    sdata
        Sections with the layer, and with counts in ``X`` or in ``layers["counts"]``.
    layer
        Layer to test; None for ``X``.
    table_name
        Name of the table.

    Returns
    -------
    pandas.DataFrame
        One row for each section:

        - ``section``: its name;
        - ``recorded``: whether :func:`stpredict.pp.smooth` is among the steps that made the layer;
        - ``noise_kept``: variance that is not predicted, relative to that of the counts; NaN
          without other counts;
        - ``sub_poisson``: share of genes of which less variance remains than Poisson counts have,
          in the layer if it has counts, else in the counts; 0.1 % by chance, NaN without counts;
        - ``verdict``: ``"smoothed"`` if it is recorded, less than 0.8 of the noise is kept, or more
          than 5 % of the genes vary less than counts, ``"untested"`` without counts or for fewer
          than 20 spots or genes, else ``"measured"``.

    Raises
    ------
    KeyError
        If the table or the layer does not exist.
    ValueError
        If the layer has NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.tl.audit_layer(sdata)["verdict"].tolist()
    ['measured']
    >>> layers = sdata["table"].layers
    >>> scores, sizes, axes = np.linalg.svd(layers["log1p"].toarray(), full_matrices=False)
    >>> layers["denoised"] = scores[:, :8] * sizes[:8] @ axes[:8]
    >>> stp.tl.audit_layer(sdata, "denoised")["verdict"].tolist()
    ['smoothed']
    """
    evidence = layer_evidence(open_table(sdata, table_name), layer)
    label = "X" if layer is None else f"layers[{layer!r}]"
    for verdict in (SMOOTHED, UNTESTED):
        sections = evidence.loc[evidence["verdict"] == verdict, "section"]
        if len(sections):
            info(f"{label} is {verdict} in sections {_validate.listing(sections)}")
    return evidence
