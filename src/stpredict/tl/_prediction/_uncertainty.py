"""Intervals and reliable genes of a table of predictions, as far as sections are familiar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd

from stpredict import _keys, _validate
from stpredict._log import info, warn

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict.models import Model
    from stpredict.uncertainty import Calibration, Intervals, SectionRule


#: Smallest factor of the width that is reported.
_REPORTED = 1.05


@dataclass(frozen=True, eq=False)
class SectionWidths:
    """Factors of the widths of intervals; NaN in sections without intervals."""

    of_row: NDArray[np.float32]  # (n_obs,)
    unfamiliar: list[str]  # sections without intervals
    notes: dict[str, str]  # why intervals of a section are wider or absent

    @classmethod
    def of(
        cls, rule: SectionRule, familiarity: NDArray[np.float32], sections: NDArray[np.str_]
    ) -> SectionWidths:
        """Judge every section by the median familiarity of its tiles, and report the result."""
        medians = pd.Series(familiarity).groupby(sections, sort=False).median()
        widths = medians.map(rule.width)
        unfamiliar, notes = [], {}
        for section, width in widths.items():
            median = f"median familiarity {medians[section]:.2f}"
            if np.isnan(width):
                unfamiliar.append(str(section))
                notes[str(section)] = f"no intervals: {median} is below {rule.limit:.2g}"
            elif width >= _REPORTED:
                notes[str(section)] = f"intervals are {width:.2f} times as wide: {median}"
        if unfamiliar:
            names = _validate.listing(
                f"{name} (median familiarity {medians[name]:.2f})" for name in unfamiliar
            )
            warn(
                f"tiles of {names} look unlike those of the training sections (median about 0.5), "
                f"so that they have no intervals and var[{_keys.RELIABLE!r}] is missing: compare "
                "stain, focus and µm per pixel (stp.pl.stain, stp.pl.tiles)"
            )
        widened = [f"{name}: {notes[name]}" for name in notes if name not in unfamiliar]
        if widened:
            info(f"predict: sections look less familiar than in training; {'; '.join(widened)}")
        of_row = widths.reindex(sections).to_numpy(dtype=np.float32)
        return cls(of_row, unfamiliar, notes)


def add_uncertainty(
    predicted: AnnData, model: Model, calibration: Calibration, widths: SectionWidths
) -> None:
    """Add intervals and reliable genes, as far as tiles are familiar."""
    options = {"intervals": calibration.intervals, "nonnegative": model.nonnegative}
    for side, name in enumerate((_keys.LOWER, _keys.UPPER)):
        options["side"] = side
        predicted.layers[name] = _blockwise(predicted.X, widths.of_row[:, None], options)
    reliable = pd.array(calibration.reliable, dtype="boolean")
    if widths.unfamiliar:  # a gene may be reliable only on tissue like that of training
        reliable[:] = pd.NA
    predicted.var[_keys.RELIABLE] = reliable


def _blockwise(values: Any, widths: NDArray[np.float32], options: dict[str, Any]) -> Any:
    """Bounds around predictions, which may be on disk."""
    if not isinstance(values, da.Array):
        return _bound(np.asarray(values), widths, **options)
    of_chunks = da.from_array(widths, chunks=(values.chunks[0], 1))
    return da.map_blocks(
        _bound,
        values,
        of_chunks,
        dtype=np.float32,
        chunks=values.chunks,
        meta=values._meta,
        **options,
    )


def _bound(
    values: NDArray[np.float32],
    widths: NDArray[np.float32],
    *,
    intervals: Intervals,
    nonnegative: bool,
    side: int,
) -> NDArray[np.float32]:
    """Lower (0) or upper (1) bounds around predictions; NaN where tiles are unfamiliar."""
    bound = intervals.around(values, widths)[side]
    return np.maximum(bound, np.float32(0)) if nonnegative else bound
