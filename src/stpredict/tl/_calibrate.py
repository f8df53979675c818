"""Estimate how far the predictions of a model can be trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.targets import Standard
from stpredict.targets._high import High
from stpredict.tl._crossval._held_out import read_held_out
from stpredict.tl._crossval._section_rule import fit_section_rule
from stpredict.tl._fitting._inputs import tile_embedding
from stpredict.uncertainty import (
    Calibration,
    conformal,
    coverage_by_group,
    reliable,
    rows_needed,
)
from stpredict.uncertainty._familiarity import LeftOut

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.models import Model


@checked
def calibrate(
    sdata: SpatialData,
    model: Model,
    *,
    method: str | None = None,
    level: float = 0.9,
    table_name: str = "table",
    key: str = "out_of_fold",
) -> Model:
    """Estimate from a cross-validation how far the predictions of a model can be trusted.

    Errors on groups left out give prediction intervals (:func:`stpredict.uncertainty.conformal`)
    and decide which genes are reliable (:func:`stpredict.uncertainty.reliable`). Distances between
    tiles of different groups define which are familiar
    (:class:`stpredict.uncertainty.Familiarity`). :func:`stpredict.tl.predict` writes all three.

    Training groups that were left out also set the rule for less familiar sections
    (:class:`stpredict.uncertainty.SectionRule`): how unfamiliar a section is that has no intervals,
    and, for models with ``standardize="section"``, which do not see the composition of a section,
    how much wider intervals have to be.

    Intervals tend to be too wide, as folds have fewer groups to fit models to. Coverage holds for
    a new group *like the training groups*: sections of one patient provide no information about
    other patients.

    Parameters
    ----------
    sdata
        Training sections of the model, after :func:`stpredict.tl.cross_validate`.
    model
        Model fitted on all of the sections.
    method
        Name of the model's method in the cross-validation, by default the one with the options of
        the model. It must have the same ``fit_*`` and the same options.
    level
        Share of the measured values that intervals are to cover.
    table_name
        Name of the table.
    key
        Name of the table with the out-of-fold predictions.

    Returns
    -------
    Model
        New model with a ``calibration``, a :class:`stpredict.uncertainty.Calibration`. Genes that
        folds selected in fewer than two groups have no intervals and are not reliable.

    Raises
    ------
    KeyError
        If out-of-fold predictions of the method and genes, or the model's inputs, are missing.
    TypeError
        If ``model`` is no fitted model.
    ValueError
        If the split leaks a group, the method, its options, the rows, sections or units are not the
        model's, several methods have its options, a gene is NaN in some rows of a fold, there is
        only one group, or too few rows for the level, or the model predicts probabilities of high
        expression.

    References
    ----------
    Vovk, Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence 2015.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(3)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, genes=["morphology_001", "morphology_002"])
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> model = stp.tl.calibrate(sdata, stp.tl.fit_ridge(sdata))
    >>> sorted(model.calibration.coverage_of_groups)
    ['P1', 'P2', 'P3']
    """
    n_needed = rows_needed(level)  # raises on a bad level
    if isinstance(model.targets, High):
        raise ValueError(
            "the model predicts probabilities of high expression, which have no intervals: "
            "calibrate a model of the expression itself"
        )
    spots = open_table(sdata, table_name)
    held_out = read_held_out(spots, model, method=method, key=key)
    if len(held_out.predicted) < n_needed:
        n_rows = len(held_out.predicted)
        raise ValueError(f"level={level:g} needs at least {n_needed} held-out rows, found {n_rows}")
    embedding = tile_embedding(spots, model)
    if model.recipe.tiles is not None and model.inputs is None:
        # a model on pixels reads no embedding: this one serves familiarity only
        scaler = Standard.fit(embedding)
        model, embedding = replace(model, inputs=scaler), scaler.transform(embedding)
    errors = (held_out.measured, held_out.predicted, held_out.groups)
    names, coverage = coverage_by_group(*errors, level=level)  # by intervals of the other groups
    left_out = LeftOut.fit(embedding, held_out.groups)
    calibration = Calibration(
        method=held_out.method,
        groups=names,
        intervals=conformal(*errors, level=level),
        coverage=coverage,
        reliability=reliable(
            held_out.measured,
            held_out.predicted,
            spots.positions_um,
            sections=held_out.sections,
            groups=held_out.groups,
        ),
        familiarity=left_out.familiarity,
        section_rule=fit_section_rule(spots, model, held_out, embedding, left_out, level=level),
    )
    _report(calibration, model)
    return replace(model, calibration=calibration)


def _report(calibration: Calibration, model: Model) -> None:
    covered = [f"{name} {share:.1%}" for name, share in calibration.coverage_of_groups.items()]
    n_without = int((~calibration.intervals.available).sum())
    text = (
        f"calibrated on {calibration.method!r}: intervals at {calibration.level:.0%} cover "
        f"{', '.join(covered)} of groups left out in turn (mean {calibration.mean_coverage:.1%}); "
        f"{int(calibration.reliable.sum())} of {len(model.genes)} genes are reliable"
        + (f", {n_without} were predicted in too few groups for intervals" if n_without else "")
    )
    info(text.replace("%", " %"))
