"""How tables of predictions were scored, for readers of the scores."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, results
from stpredict._sdata._layer_steps import holds_counts
from stpredict._sdata._provenance import recorded, rows_to_score
from stpredict._sdata._sections import default_min_counts
from stpredict.metrics._scores import is_constant
from stpredict.targets._matrix import as_matrix
from stpredict.tl._crossval._fold_scores import n_patients
from stpredict.tl._evaluation._donors import leaking_donors
from stpredict.tl._fitting._record import package_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.tl._evaluation._truth import Truth


def evaluation_protocol(
    spots: SpotTable,
    predictions: dict[str, AnnData],
    truth: Truth,
    rows: NDArray[np.intp],
    *,
    groups: str | None,
    seed: int,
    targets: str,
) -> results.Protocol:
    """How tables were scored on some rows of the measured table."""
    records = {name: recorded(table, "predict") for name, table in predictions.items()}
    sections = tuple(dict.fromkeys(spots.section_of_row[rows].tolist()))
    trained_on = {name: tuple(step.get("training_sections", ())) for name, step in records.items()}
    training = {section for names in trained_on.values() for section in names}
    donors = leaking_donors(spots, rows, records, groups)
    notes = [*donors.notes, *_notes(spots, predictions, records, truth.units, targets, len(rows))]
    if targets == "genes":
        notes += _few_counts(spots, rows)
    return results.Protocol(
        sections=sections,
        n_spots=len(rows),
        n_patients=n_patients(spots.table[rows]),
        n_genes={
            name: int(table.var_names.isin(spots.table.var_names).sum())
            for name, table in predictions.items()
        },
        units=truth.units,
        layer=truth.layer,
        targets=targets,
        trained_on=trained_on,
        notes=tuple(notes),
        leaking_patients=donors.names,
        leaking_sections=tuple(section for section in sections if section in training),
        realigned=bool(recorded(spots.table, _keys.REALIGN)),
        seed=seed,
        date=datetime.date.today().isoformat(),
        versions=package_versions(),
    )


def _notes(
    spots: SpotTable,
    predictions: dict[str, AnnData],
    records: dict[str, dict[str, Any]],
    units: str,
    targets: str,
    n_scored: int,
) -> Iterator[str]:
    """What a reader of the scores should know about each table."""
    names = spots.table.obs_names
    is_predicted, is_used = np.zeros((2, len(names)), dtype=bool)
    for table in predictions.values():
        is_predicted |= names.isin(table.obs_names)
        is_used |= names.isin(table.obs_names[~rows_to_score(table)])
    n_left_out = int((is_predicted & ~is_used).sum()) - n_scored
    if n_left_out:
        yield f"{n_left_out} spots that not all tables of their section predict are not scored."
    for name, table in predictions.items():
        record = records[name]
        n_absent = int((~table.var_names.isin(spots.table.var_names)).sum())
        if n_absent:
            yield f"{n_absent} {targets} of {name!r} were not measured."
        n_used = int((~rows_to_score(table)).sum())
        if n_used:
            yield f"{n_used} spots that {name!r} was adapted to are not scored."
        n_constant = int(is_constant(np.asarray(table.X).T).sum())
        if n_constant:
            yield f"{n_constant} {targets} of {name!r} are CONSTANT and score 0."
        for note in record.get("notes", ()):  # of `io.read_predictions`
            yield f"{name!r}: {note}."
        if record.get("unknown_training"):
            yield f"The training sections of {name!r} are UNKNOWN: leaks cannot be excluded."
        if record["units"] == _keys.UNKNOWN_UNITS:
            yield f"{name!r} is in unknown units: scores that depend on units are left out."
    predicted = {str(record["units"]) for record in records.values()} - {_keys.UNKNOWN_UNITS}
    if predicted - {units}:
        yield f"Predictions are in {predicted.pop()}: RMSE compares the two as they are."


def _few_counts(spots: SpotTable, rows: NDArray[np.intp]) -> Iterator[str]:
    """A note on spots that `pp.filter_spots` removes: their noise lowers the scores."""
    if not holds_counts(as_matrix(spots.table.X)):
        return
    least = recorded(spots.table, "filter_spots").get("min_counts")
    if least is None:
        try:
            least = default_min_counts(spots.sections)
        except ValueError:  # without images, the size of the spots is not known
            return
    total = np.asarray(spots.counts[rows].sum(axis=1), dtype=np.float64).ravel()
    n_few = int((total < least).sum())
    if n_few:
        yield (
            f"{n_few} of {len(rows)} scored spots have fewer than {least:g} counts: "
            "stp.pp.filter_spots removes such spots."
        )
