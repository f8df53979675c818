"""Corrected predictions of spots as a table, and of other places in their sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stpredict import _keys
from stpredict._sdata._provenance import record, recorded
from stpredict._sdata._spacing import spacing_of
from stpredict.tl._adaptation._correct import LEVEL, Corrected, correct, main_directions
from stpredict.tl._adaptation._measured import read_measured
from stpredict.tl._adaptation._process import Places, standardised
from stpredict.tl._fitting._inputs import prediction_inputs, tile_embedding
from stpredict.tl._prediction._table import Predictions, predicted_table

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._sections import Section
    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.tl._adaptation._measured import MeasuredSpots


@dataclass(frozen=True, eq=False)
class Correction:
    """What predictions in the sections of some measured spots are corrected by."""

    spots: SpotTable
    model: Model
    measured: MeasuredSpots
    predicted: NDArray[np.float32]  # (n_obs, n_genes), of the spots
    embedding: NDArray[np.float32]  # (n_obs, d)
    pitches: dict[str, float]  # by section with measured spots

    @classmethod
    def read(
        cls, spots: SpotTable, model: Model, mask: NDArray[np.bool_], *, device: str
    ) -> Correction:
        """Check everything and predict the spots; expression of those not in the mask is unread."""
        inputs = prediction_inputs(spots, model)
        measured = read_measured(spots, model, mask)
        pitches = {
            section.name: _pitch_um(section)
            for section in spots.sections
            if mask[section.rows].any()
        }
        predicted, _ = model.predict_inputs(inputs, spread=False, device=device)
        return cls(spots, model, measured, predicted, tile_embedding(spots, model), pitches)

    @property
    def n_measured(self) -> dict[str, int]:
        """Number of measured spots of each section that has any."""
        rows = self.spots.section_rows
        return {name: int(self.measured.mask[rows[name]].sum()) for name in self.pitches}

    def at_spots(self, section: Section) -> Corrected:
        """Corrected predictions of the spots of a section."""
        return self._correct(section, [], [], [])

    def at_places(
        self,
        section: Section,
        centers_um: NDArray[np.float64],
        embedding: NDArray[np.floating],
        predicted: NDArray[np.floating],
    ) -> Corrected:
        """Corrected predictions of other places in a section."""
        result = self._correct(section, [centers_um], [embedding], [predicted])
        return result.after(len(section.rows))

    def _correct(
        self,
        section: Section,
        centers_um: list[NDArray[np.float64]],
        embedding: list[NDArray[np.floating]],
        predicted: list[NDArray[np.floating]],
    ) -> Corrected:
        rows, measured = section.rows, self.measured.of(section)
        before = self.predicted[rows].astype(np.float64)
        return correct(
            Places(
                np.concatenate([section.centers_um, *centers_um]) / self.pitches[section.name],
                standardised(self.embedding[rows], *embedding),
            ),
            measured.rows,
            np.concatenate([before, *predicted], dtype=np.float64),
            measured.values,
            # the errors of a model lie mostly in the directions in which its predictions vary
            directions=main_directions(before),
            nonnegative=self.model.nonnegative,
            noise=measured.noise,
        )


def corrected_table(correction: Correction, *, column: str | None = None) -> AnnData:
    """Table of the corrected predictions of all spots."""
    spots, values = correction.spots, correction.predicted.copy()
    layers = _empty_layers(values)
    for section in spots.sections:
        if section.name in correction.pitches:
            _write(correction.at_spots(section), section.rows, values, layers)
    predictions = Predictions(np.arange(len(values)), values)
    table = predicted_table(spots, correction.model, predictions, level=LEVEL)
    table.layers.update(layers)
    table.obs[_keys.MEASURED] = correction.measured.mask
    record(table, _keys.ADAPT, column=column, n_measured=correction.n_measured)
    return table


def correct_positions(correction: Correction, positions: SpotTable, table: AnnData) -> None:
    """Correct a table of predictions at other positions, whose sections are those of the spots."""
    embedding, values = tile_embedding(positions, correction.model), np.asarray(table.X)
    layers = _empty_layers(values)
    for section, part in zip(correction.spots.sections, positions.sections, strict=True):
        if section.name in correction.pitches:
            rows = part.rows
            corrected = correction.at_places(
                section, part.centers_um, embedding[rows], values[rows]
            )
            _write(corrected, rows, values, layers)
    table.X = values
    table.layers.update(layers)
    record(table, "predict", **{**recorded(table, "predict"), "level": LEVEL})


def _empty_layers(values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Layers of uncertainty, (n, n_genes), NaN."""
    return {name: np.full_like(values, np.nan) for name in (_keys.STD, _keys.LOWER, _keys.UPPER)}


def _write(
    corrected: Corrected,
    rows: NDArray[np.intp],
    values: NDArray[np.float32],
    layers: dict[str, NDArray[np.float32]],
) -> None:
    """Write corrected predictions and their uncertainty to some rows."""
    values[rows] = corrected.values
    for name, layer in layers.items():
        layer[rows] = getattr(corrected, name)


def _pitch_um(section: Section) -> float:
    """Distance between neighbouring spots, by which lengths are measured."""
    pitch = spacing_of(section.centers_um).pitch_um
    if not pitch > 0:
        raise ValueError(
            f"the spots of section {section.name!r} lie in one place, so that errors of measured "
            "spots cannot be interpolated: check their positions"
        )
    return pitch
