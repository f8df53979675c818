"""Score tables of predictions against measured expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict import _keys, _validate, results
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._layer_steps import check_same_units, units_of
from stpredict._sdata._provenance import recorded, rows_to_score
from stpredict._sdata._spot_table import open_table, require_key
from stpredict.targets._counts import COUNTS_UNITS, TARGET_SUM
from stpredict.targets._high import HIGH_UNITS, is_high
from stpredict.targets._matrix import as_matrix, dense
from stpredict.tl._crossval._scores import as_table, score_method, score_references, scored_sections
from stpredict.tl._evaluation._protocol import evaluation_protocol
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._split import group_labels
from stpredict.tl._fitting._values import library_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData


@checked
@shared()
def evaluate(
    sdata: SpatialData,
    tables: str | Sequence[str] = "predicted",
    *,
    layer: str | None = None,
    seed: int = 0,
    table_name: str = "table",
) -> results.Scores:
    """Score tables of predictions against measured expression.

    Correlations are computed per gene over the spots of each section; a gene that is constant in
    either scores 0 and is counted. Nulls, references and noise ceiling are as in
    :func:`stpredict.tl.cross_validate`. A baseline is a table like any other: fit it, and predict
    with another ``key_added``. Rows and genes are matched by name. Spots whose expression
    :func:`stpredict.tl.adapt` used for one of the tables are not scored. Predictions of other tools
    are read by :func:`stpredict.io.read_predictions`; without units, they have only the scores that
    do not depend on units.

    Parameters
    ----------
    sdata
        Sections with measured expression and tables of predictions (`tl.predict`,
        `io.read_predictions`).
    tables
        Name of a table of predictions, or several to compare.
    layer
        Measured layer, by default that of training; for models of counts, counts per 10,000; for
        ``targets="high"``, whether it is above the threshold of training (1) or not (0).
    seed
        Random seed of the nulls.
    table_name
        Name of the table with the measured expression.

    Returns
    -------
    Scores
        Tidy scores and the protocol, which is printed. The tables' names are the methods.

    Raises
    ------
    KeyError
        If a table or the layer does not exist.
    ValueError
        If a table holds no such predictions, shares no spots or genes with the measured one, has
        NaN or other units than another, or a section has a single spot. If the measured layer is in
        other units, such as log counts of another total, unless it is named by ``layer``, which
        predictions of high expression do not allow.

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
    spots = open_table(sdata, table_name)
    predictions = {name: _predictions(sdata, name) for name in names}
    records = {name: recorded(table, "predict") for name, table in predictions.items()}
    used = _used_spots(predictions.values())
    units = {name: step["units"] for name, step in records.items()}
    in_units = [name for name in names if units[name] != _keys.UNKNOWN_UNITS]
    if len({units[name] for name in in_units}) > 1:
        raise ValueError(f"the tables are in different units: {units}; evaluate them one by one")
    first = records[(in_units or names)[0]]
    if layer is None:
        check_same_units(spots.table, first)
    per_10k = layer is None and first["units"] == COUNTS_UNITS
    is_binary = first["units"].startswith(HIGH_UNITS)
    if is_binary and len(in_units) < len(names):
        raise ValueError(
            f"predictions of high expression are not compared with unknown units: {units}"
        )
    if is_binary and layer not in (None, first.get("layer")):
        raise ValueError(
            f"layer={layer!r} has other values than layer={first.get('layer')!r}, whose high "
            "values were predicted: leave out layer="
        )
    layer = first.get("layer") if layer is None else layer
    measured = as_matrix(spots.layer(layer))
    labels, _ = group_labels(spots, None)
    ceiling_layer = None if per_10k or is_binary else layer  # known for log1p only
    parts: list[pd.DataFrame] = []
    scored_rows: list[NDArray[np.intp]] = []
    covered: set[tuple[str, str, str]] = set()
    # references are scored once, with the training mean if a table has it
    for name in sorted(names, key=lambda name: _training_mean(predictions[name]) is None):
        table, has_units = predictions[name], name in in_units
        rows, columns, matched = _match(spots.table, table, name, used)
        values = np.asarray(dense(measured[rows][:, columns]), dtype=np.float64)
        if per_10k:
            values = values / library_size(measured)[rows, None] * TARGET_SUM
        if is_binary:
            values = is_high(values, matched.var[_keys.THRESHOLD].to_numpy()).astype(np.float64)
        predicted = np.asarray(matched.X, dtype=np.float64)
        genes = matched.var_names.to_numpy()
        mean = _training_mean(matched)
        scored_rows.append(rows)  # tables may cover different spots
        order = np.argsort(rows)  # sections are found in ascending rows
        for scored in scored_sections(spots, rows[order], labels):
            places = order[np.searchsorted(rows[order], scored.rows)]
            options: dict[str, Any] = {"seed": seed, "has_units": has_units}
            parts += score_method(scored, name, values[places], predicted[places], genes, **options)
            parts += score_references(
                scored, spots, values[places], genes, mean, covered, layer=ceiling_layer, seed=seed
            )
    rows = np.unique(np.concatenate(scored_rows))
    words = first["units"] if per_10k or is_binary else units_of(spots.table, layer)
    protocol = evaluation_protocol(
        spots, predictions, records, rows, layer=layer, units=words, seed=seed
    )
    scores = results.Scores(as_table(parts), tuple(names), protocol)
    info(repr(scores))
    return scores


def _predictions(sdata: SpatialData, name: str) -> AnnData:
    require_key(name, sdata.tables, what="tables")
    table = sdata.tables[name]
    if not recorded(table, "predict") or "training_mean" not in table.var:
        raise ValueError(
            f"tables[{name!r}] does not hold genes predicted by stp.tl.predict. Read predictions "
            "of another tool with stp.io.read_predictions"
        )
    _validate.finite(table.X, what=f"tables[{name!r}].X")
    return table


def _training_mean(table: AnnData) -> NDArray[np.float64] | None:
    """Mean of each gene in training; None if it is not known, as for some published models."""
    mean = table.var["training_mean"].to_numpy(dtype=np.float64)
    return None if np.isnan(mean).any() else mean


def _used_spots(tables: Iterable[AnnData]) -> pd.Index:
    """Spots whose expression one of the tables used (`tl.adapt`), so that none is scored there."""
    used = pd.Index([])
    for table in tables:
        used = used.union(table.obs_names[~rows_to_score(table)], sort=False)
    return used


def _match(
    measured: AnnData, table: AnnData, name: str, used: pd.Index
) -> tuple[NDArray[np.intp], NDArray[np.intp], AnnData]:
    """Rows and columns of the measured table that a table predicts, and that part of it."""
    spots = table.obs_names.difference(used, sort=False)
    spots = spots.intersection(measured.obs_names, sort=False)
    genes = table.var_names.intersection(measured.var_names, sort=False)
    if not len(spots) or not len(genes):
        reason = "" if len(genes) else _validate.why_absent(table.var_names, measured.var_names)
        shared_rows = f"{len(spots)} spots and {len(genes)} genes"
        raise ValueError(f"tables[{name!r}] and the measured table share {shared_rows}{reason}")
    rows = measured.obs_names.get_indexer(spots)
    return rows, measured.var_names.get_indexer(genes), table[spots, genes]
