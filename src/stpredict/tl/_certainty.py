"""What a calibrated model says of its own predictions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate
from stpredict.models._stack import described

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict.models import Model

#: Sections of HER2ST predicted from others of their tumour lie at 0.3 to 0.6; with 10 % more
#: haematoxylin and 10 % less eosin at 0; blurred to 40 % of their resolution at 0.2, unwarned.
_UNLIKE = 0.1


def add_certainty(
    predicted: AnnData, model: Model, inputs: Any, sections: NDArray[np.str_]
) -> None:
    """Write intervals, reliable genes and familiarity; warn of sections unlike those of training.

    Tiles have been read by now.
    """
    known = model.calibration
    if known is None:
        raise ValueError("the model is not calibrated: run stp.tl.calibrate first")
    lower, upper = known.intervals.around(np.asarray(predicted.X))
    predicted.layers[_keys.LOWER], predicted.layers[_keys.UPPER] = lower, upper
    predicted.var[_keys.RELIABLE] = known.reliable
    predicted.obs[_keys.FAMILIARITY] = known.familiarity.score(described(model, inputs))
    _warn(predicted.obs[_keys.FAMILIARITY], sections, model)


def _warn(familiarity: pd.Series, sections: NDArray[np.str_], model: Model) -> None:
    medians = familiarity.groupby(sections, sort=False).median()
    unlike = medians[medians < _UNLIKE]
    if unlike.empty:
        return
    found = _validate.listing(f"{name} (median familiarity {x:.2f})" for name, x in unlike.items())
    warnings.warn(
        f"tiles of {found} look unlike those of the training sections "
        f"{_validate.listing(model.training['sections'])}, whose own median is about 0.5: "
        "predictions and intervals may not hold. Compare the stain (stp.pl.stain; train and "
        "predict on stp.pp.normalize_stain), the scanner and its focus, and check the µm per pixel "
        'and the tissue under the spots; obs["familiarity"] has every spot',
        UserWarning,
        stacklevel=4,
    )
