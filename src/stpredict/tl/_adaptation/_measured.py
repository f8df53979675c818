"""The measured spots of a table: which they are, and their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype

from stpredict import _validate
from stpredict._sdata._layer_steps import check_same_units
from stpredict._sdata._spot_table import SpotTable
from stpredict._sdata._steps import NormalizeStep, SmoothStep
from stpredict.targets._high import HIGH_UNITS
from stpredict.targets._matrix import dense
from stpredict.tl._adaptation._noise import CountingNoise
from stpredict.tl._fitting._values import genes_of_model, library_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict.models import Model

#: Measured spots of a section, below which errors say little about those of other spots.
_LEAST = 5


@dataclass(frozen=True, eq=False)
class MeasuredSpots:
    """Measured spots of a table or of a section."""

    mask: NDArray[np.bool_]  # (n,)
    values: NDArray[np.float64]  # (n_measured, n_genes)
    noise: CountingNoise | None  # None if it is not known

    @property
    def rows(self) -> NDArray[np.intp]:
        """Rows of the measured spots, (n_measured,)."""
        return np.flatnonzero(self.mask)

    def of(self, section: Section) -> MeasuredSpots:
        """Those of a section."""
        mask = self.mask[section.rows]
        places = (np.cumsum(self.mask) - 1)[section.rows[mask]]
        noise = None if self.noise is None else self.noise.take(places)
        return MeasuredSpots(mask, self.values[places], noise)


def measured_rows(spots: SpotTable, measured: Any) -> NDArray[np.bool_]:
    """Which spots are measured, (n_obs,), from a column of obs or a mask, checked."""
    mask = _read_mask(spots, measured)
    n_measured = int(mask.sum())
    if n_measured == 0:
        raise ValueError(
            "measured marks no spot: for predictions without measured spots, use stp.tl.predict"
        )
    for name, rows in spots.section_rows.items():
        n_in_section = int(mask[rows].sum())
        if n_in_section == len(rows):
            raise ValueError(
                f"measured marks all {len(rows)} spots of section {name!r}, so that none remains "
                "to predict: mark only some, or use stp.tl.denoise for their expression"
            )
        if 0 < n_in_section < _LEAST:
            raise ValueError(
                f"measured marks {n_in_section} spots of section {name!r}: mark at least {_LEAST}, "
                "or none to keep the predictions of the model"
            )
    _check_inside(spots, mask, "They are marked by measured=: mark spots inside the image only")
    return mask


def all_rows(spots: SpotTable) -> NDArray[np.bool_]:
    """All spots as measured, (n_obs,), checked."""
    for name, rows in spots.section_rows.items():
        if len(rows) < _LEAST:
            raise ValueError(
                f"section {name!r} has {len(rows)} spots, but at least {_LEAST} are needed: leave "
                "it out with sdata.subset"
            )
    mask = np.ones(spots.table.n_obs, dtype=bool)
    _check_inside(spots, mask, "Drop them with stp.pp.filter_spots")
    return mask


def _check_inside(spots: SpotTable, mask: NDArray[np.bool_], hint: str) -> None:
    for section in spots.sections:
        _validate.inside_image(
            section.centers[mask[section.rows]],
            section.shape_yx,
            section=section.name,
            hint=hint,
        )


def _read_mask(spots: SpotTable, measured: Any) -> NDArray[np.bool_]:
    obs, label = spots.table.obs, "measured"
    if isinstance(measured, str):
        if measured not in obs:
            columns = _validate.listing(obs.columns)
            raise KeyError(f"obs has no column measured={measured!r}; columns: {columns}")
        measured, label = obs[measured], f"obs[{measured!r}], given as measured="
    if isinstance(measured, pd.Series):
        if not measured.index.equals(obs.index):
            raise ValueError(
                "the index of measured differs from obs_names of the table: select its rows with "
                "measured.loc[table.obs_names]"
            )
        n_missing = int(measured.isna().sum())
        if is_bool_dtype(measured.dtype) and n_missing:
            raise ValueError(f"{label} has {n_missing} missing values: fill them with False")
        mask = measured.to_numpy()
    elif isinstance(measured, np.ndarray | list | tuple):
        try:
            mask = np.asarray(measured)
        except ValueError as error:  # rows of different lengths
            raise TypeError(f"measured must be one list of booleans: {error}") from error
    else:
        kind = type(measured).__name__
        raise TypeError(f"measured must be a column of obs or an array of booleans, not {kind}")
    if not is_bool_dtype(mask.dtype):
        raise TypeError(f"{label} must hold booleans, not {mask.dtype}")
    if mask.shape != (spots.table.n_obs,):
        raise ValueError(
            f"{label} has the shape {mask.shape}, but the table has {spots.table.n_obs} spots: "
            "give one boolean per spot"
        )
    return np.asarray(mask, dtype=bool)


def read_measured(spots: SpotTable, model: Model, mask: NDArray[np.bool_]) -> MeasuredSpots:
    """Measured values of the model's genes and their noise; other spots are not read."""
    if not model.training.sections:
        raise ValueError(
            "the model does not report its units, in which spots must be measured: use a model "
            "that was fitted or finetuned on a layer"
        )
    if model.units.startswith(HIGH_UNITS):
        raise ValueError(
            f"the model predicts {model.units}, which is not measured: fit a model with another "
            "targets="
        )
    if any(isinstance(step, SmoothStep) for step in model.recipe.layer_steps):
        raise ValueError(
            f"the model predicts {model.units}, and smoothing mixes measured spots with others: "
            "fit a model on a layer that is not smoothed"
        )
    measured = SpotTable(spots.sdata, spots.name, spots.rows(np.flatnonzero(mask)))
    training = {"units": model.units, "layer": model.recipe.layer}
    check_same_units(measured.table, {**training, "training_sections": model.training.sections})
    values = genes_of_model(measured, model).dense().astype(np.float64)
    return MeasuredSpots(mask, values, _counting_noise(measured, model, values))


def _counting_noise(
    measured: SpotTable, model: Model, values: NDArray[np.float64]
) -> CountingNoise | None:
    """Noise of the values if they are the log of normalised counts, which are in X."""
    match model.recipe.layer_steps:
        case (NormalizeStep(target_sum=target_sum),):
            totals = library_size(measured.table.X)
        case _:
            return None
    columns = measured.table.var_names.get_indexer(list(model.genes))
    counts = np.asarray(dense(measured.table.X[:, columns]), dtype=np.float64)
    expected = np.log1p(counts * target_sum / np.maximum(totals, 1)[:, None])
    # the layer may have been changed, or X be something else
    return CountingNoise(totals, target_sum) if np.allclose(values, expected, atol=1e-3) else None
