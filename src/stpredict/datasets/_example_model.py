"""A fitted model that is part of the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stpredict._arguments import checked

if TYPE_CHECKING:
    from stpredict.models import Model


@checked
def example_model() -> Model:
    """Ridge regression for a HER2-positive breast tumour, to try the package without training.

    It predicts 250 genes from the texture encoder, which needs no weights, on tiles of 112, 224 and
    448 µm. It was trained on the sections C2, C3 and C4 of :func:`stpredict.datasets.her2st` and
    calibrated by leaving out one of them at a time, so that section C5 is new to it. C5 is of the
    same patient: sections of other patients are predicted less well, and other tissue is not what
    the model is for. `benchmarks/example_model.py` in the repository trains it.

    Returns
    -------
    Model
        Calibrated model, for `pp.prepare`, `tl.predict` and `tl.predict_slide`; its ``save`` writes
        the folder that the command line takes.

    References
    ----------
    Andersson et al., Spatial deconvolution of HER2-positive breast cancer delineates
    tumor-associated cell type interactions, Nature Communications 2021 (CC-BY 4.0).

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.datasets.example_model()
    >>> len(model.genes), model.training.sections
    (250, ('C2', 'C3', 'C4'))
    """
    from stpredict.models import load  # with torch, which the other data sets do not need

    return load(Path(__file__).with_name("example_model"))
