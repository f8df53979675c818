"""Score tables of predictions against measured expression."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _validate, results
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.pp._expression._programs import read_gmt
from stpredict.tl._audit._layers import check_test_layer
from stpredict.tl._evaluation._programs import score_programs
from stpredict.tl._evaluation._protocol import evaluation_protocol
from stpredict.tl._evaluation._tables import match, open_predictions, score_tables
from stpredict.tl._evaluation._truth import Truth
from stpredict.tl._fitting._docs import shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable


@checked
@shared()
def evaluate(
    sdata: SpatialData,
    tables: str | Sequence[str] = "predicted",
    *,
    layer: str | None = None,
    groups: str | None = None,
    gene_sets: str | Path | None = None,
    allow_smoothed: bool = False,
    seed: int = 0,
    table_name: str = "table",
) -> results.Scores:
    """Score tables of predictions against measured expression.

    Correlations are computed per gene over the spots of each section; a gene that is constant in
    either scores 0 and is counted. Nulls, references and noise ceiling are as in
    :func:`stpredict.tl.cross_validate`; if tables have different training means, that of the first
    is scored. A baseline is a table like any other: fit it, and predict with another ``key_added``.
    Rows and genes are matched by name. In each section, all tables that predict it are scored on
    the same spots, without those whose expression :func:`stpredict.tl.adapt` used. Spots with few
    counts, which :func:`stpredict.pp.filter_spots` removes, are scored, and their number is
    reported. Predictions of other tools are read by :func:`stpredict.io.read_predictions`; without
    units, they have only the scores that do not depend on units.

    Parameters
    ----------
    sdata
        Sections with measured expression and tables of predictions (`tl.predict`,
        `io.read_predictions`).
    tables
        Name of a table of predictions, or several to compare.
    layer
        Measured layer, by default that of training; for models of counts, counts per 10,000; for
        ``targets="high"``, whether it is above the threshold of training (1) or not (0), with
        ``average_precision``, whose chance level is the score of the training mean, as a further
        metric.
    groups
        Column of ``obs`` with the donors, by default ``"patient"``: scores are marked LEAKY if
        another section of a scored donor was in training.
    gene_sets
        Path of a GMT file, as for :func:`stpredict.pp.score_programs`: programmes are scored next
        to genes, in ``scores.programs``. Both sides are computed from the genes that all tables
        predict: the mean of a set minus that of the same genes of similar measured expression.
    allow_smoothed
        Score against a layer that was smoothed, imputed or denoised, as
        :func:`stpredict.tl.audit_layer` finds out. Such scores are too high, and marked.
    seed
        Random seed of the nulls, and of the genes that sets are compared with.
    table_name
        Name of the table with the measured expression.

    Returns
    -------
    Scores
        Tidy scores and the protocol, which is printed. The tables' names are the methods.

    Raises
    ------
    FileNotFoundError, KeyError
        If the file, a table, the layer or the column of donors does not exist.
    ValueError
        If a table holds no such predictions, shares no spots or genes with the measured one or no
        spots of a section with another, has NaN, or other units or thresholds than another, all its
        spots were used (`tl.denoise`), a section has a single spot, or ``groups`` has gaps. If
        ``table_name`` holds predictions itself. If no gene of a set is predicted, or the file is no
        GMT file. If the measured layer is in other units, such as log counts of another total,
        unless it is named by ``layer``, which predictions of high expression do not allow. If the
        measured layer was smoothed, imputed or denoised, unless that is allowed.

    Examples
    --------
    {prepared}
    >>> stp.tl.predict(sdata, stp.tl.fit_ridge(sdata))
    >>> scores = stp.tl.evaluate(sdata)
    >>> scores.leaky  # the model was trained on these sections
    True
    >>> scores.genes().columns[:2].tolist()
    ['pcc', 'spearman']
    """
    _validate.seed(seed)
    names = _validate.name_list("tables", [tables] if isinstance(tables, str) else tables)
    sets = None if gene_sets is None else read_gmt(Path(gene_sets))
    spots = open_table(sdata, table_name)
    predictions = open_predictions(sdata, names)
    truth = Truth.of(spots, predictions, layer)
    options: dict[str, Any] = {"groups": groups, "seed": seed}
    smoothing = check_test_layer(spots, truth.layer, allow_smoothed=allow_smoothed)
    programs = None
    if sets is not None:
        programs = score_programs(spots, truth, predictions, sets, seed=seed)
    scores = _scores(spots, truth, predictions, **options)
    protocol = replace(scores.protocol, notes=(*smoothing, *scores.protocol.notes))
    scores = replace(scores, protocol=protocol)
    if programs is not None:
        own, of_programs = programs.spots, programs.truth
        scored = _scores(own, of_programs, programs.predictions, notes=programs.notes, **options)
        scores = replace(scores, programs=scored)
    info(repr(scores))
    return scores


def _scores(
    spots: SpotTable,
    truth: Truth,
    predictions: dict[str, AnnData],
    *,
    groups: str | None,
    seed: int,
    notes: Sequence[str] | None = None,  # of programmes
) -> results.Scores:
    """Scores and protocol of tables of genes or of programmes."""
    targets = "genes" if notes is None else "programmes"
    pairs = match(spots, predictions)
    table = score_tables(spots, truth, pairs, seed=seed)
    rows = np.unique(np.concatenate([each.rows for each in pairs.values()]))
    protocol = evaluation_protocol(
        spots, predictions, truth, rows, groups=groups, seed=seed, targets=targets
    )
    protocol = replace(protocol, notes=(*(notes or ()), *protocol.notes))
    return results.Scores(table, tuple(predictions), protocol)
