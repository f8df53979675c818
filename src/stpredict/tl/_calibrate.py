"""Teach a fitted model how far it can be trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys
from stpredict._log import tell
from stpredict._sdata import _sections
from stpredict.models._stack import StackInputs, described
from stpredict.tl._crossval._held_out import read
from stpredict.tl._predict import inputs_of
from stpredict.training import TileStream
from stpredict.uncertainty import (
    Calibration,
    Familiarity,
    conformal,
    coverage_by_group,
    reliable,
    rows_needed,
)

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.models import Model


def calibrate(model: Model, sdata: SpatialData, *, method: str, level: float = 0.9) -> Model:
    """Learn from a cross-validation how far a model's predictions can be trusted.

    The errors that the same method made on groups it had not seen, in
    ``tables["out_of_fold"]``, become prediction intervals
    (:func:`stpredict.uncertainty.conformal`), tell which genes are reliable
    (:func:`stpredict.uncertainty.reliable`), and the distances between tiles of different groups
    tell what a familiar tile is (:class:`stpredict.uncertainty.Familiarity`).
    :func:`stpredict.tl.predict` writes all three beside the predictions of the calibrated model,
    which saves and loads with it.

    The models of the folds were fitted on fewer groups than ``model``, so intervals are rather too
    wide than too narrow. Coverage is that of a new group *like the training groups*: sections of
    one patient say nothing of other patients. It is counted here in every group, with intervals
    made of the errors of the others, and told.

    Parameters
    ----------
    model
        Fitted on all of the sections.
    sdata
        Its training sections, prepared as in training, after :func:`stpredict.tl.cross_validate`.
    method
        Name that the model's method has in the cross-validation: same ``fit_*``, same options.
    level
        Share of the measured values that intervals are to hold.

    Returns
    -------
    Model
        A new model with ``calibration``, a :class:`stpredict.uncertainty.Calibration`; ``model``
        and ``sdata`` are not changed. Genes that were predicted in fewer than two groups left out,
        because folds choose their genes anew, have no intervals and are not reliable.

    Raises
    ------
    KeyError
        If there is no ``tables["out_of_fold"]``, it has no such method, none of the model's genes
        is there, or the model's inputs are missing.
    ValueError
        If the table is not of `cross_validate` or of a split that leaks a group, its rows, sections
        or units are not the model's, a gene is NaN in some rows of a fold, there is one group only,
        or there are too few rows for the level.

    References
    ----------
    Vovk, Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence 2015.

    Examples
    --------
    >>> import stpredict as stp
    >>> result = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})  # doctest: +SKIP
    >>> model = stp.tl.fit_ridge(sdata)  # doctest: +SKIP
    >>> model = stp.tl.calibrate(model, sdata, method="ridge")  # doctest: +SKIP
    >>> model.calibration.coverage_of_groups  # doctest: +SKIP
    """
    n_needed = rows_needed(level)
    table = _sections.table_of(sdata)
    held_out = read(_sections.table_of(sdata, _keys.OUT_OF_FOLD), table, model, method)
    if len(held_out.predicted) < n_needed:
        raise ValueError(
            f"level={level:g} needs at least {n_needed} held-out rows, there are "
            f"{len(held_out.predicted)}: cross-validate more sections, or ask for a lower level"
        )
    positions = np.empty((table.n_obs, 2))
    for section in _sections.sections(sdata):
        positions[section.rows] = section.centers_um
    inputs = inputs_of(sdata, model)
    _read_tiles(inputs)
    errors = (held_out.measured, held_out.predicted, held_out.groups)
    names, coverage = coverage_by_group(*errors, level=level)
    calibration = Calibration(
        method=method,
        groups=names,
        intervals=conformal(*errors, level=level),
        coverage=coverage,
        reliability=reliable(
            held_out.measured,
            held_out.predicted,
            positions,
            sections=held_out.sections,
            groups=held_out.groups,
        ),
        familiarity=Familiarity.fit(described(model, inputs), held_out.groups),
    )
    _tell(calibration, model)
    return replace(model, calibration=calibration)


def _read_tiles(inputs: Any) -> None:
    """Read tiles from the images, where it is by reading them that they are described."""
    if isinstance(inputs, StackInputs):
        _read_tiles(inputs.parts[0])
    elif isinstance(inputs, TileStream):
        for _ in inputs.tiles:
            pass


def _tell(calibration: Calibration, model: Model) -> None:
    covered = [f"{name} {x:.1%}" for name, x in calibration.coverage_of_groups.items()]
    n_lacking = int((~calibration.intervals.available).sum())
    text = (
        f"calibrated on {calibration.method!r}: intervals at {calibration.level:.0%} hold "
        f"{', '.join(covered)} of groups left out in turn (mean {calibration.mean_coverage:.1%}); "
        f"{int(calibration.reliable.sum())} of {len(model.genes)} genes are reliable"
        + (f", {n_lacking} were predicted in too few groups to have intervals" if n_lacking else "")
    )
    tell(text.replace("%", " %"))
