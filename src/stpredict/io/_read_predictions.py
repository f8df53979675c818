"""Read the predictions of another tool, so that they can be scored like our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info, warn
from stpredict._sdata._provenance import check_measured, recorded
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spot_table import open_table
from stpredict.io._predictions._source import Layout
from stpredict.io._predictions._table import Matched, Part, Units, predictions_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable


@checked
def read_predictions(
    sdata: SpatialData,
    predictions: str | Path | pd.DataFrame | AnnData | SpatialData | Mapping[str, Any],
    *,
    key: str | None = None,
    x: str | None = None,
    y: str | None = None,
    mpp: float | None = None,
    layer: str | None = _keys.LOG1P,
    same_units: bool = False,
    fit_sections: Sequence[str] | None = None,
    training_sections: Sequence[str] | None = None,
    table_name: str = "table",
    key_added: str = "external",
    copy: bool = False,
) -> SpatialData | None:
    """Read predictions of another tool as a table of the measured spots.

    :func:`stpredict.tl.evaluate`, :func:`stpredict.pl.prediction` and
    :func:`stpredict.report.write_html` then treat them like those of :func:`stpredict.tl.predict`.
    What was matched and what was not is printed, and reported with the scores.

    Parameters
    ----------
    sdata
        Sections with measured expression.
    predictions
        CSV or TSV file or DataFrame with a row per spot or tile and a column per gene (or a column
        per spot); AnnData or ``.h5ad`` file; SpatialData or ``WSIData`` with a table of tiles, such
        as LazySlide's; or a dictionary of these by section.
    key
        Name of the table, if predictions are in a SpatialData.
    x, y
        Columns with the position along the width and the height of the image. An AnnData may have
        it in ``obsm["spatial"]``, and tiles have that of their shapes.
    mpp
        µm per unit of the positions: 1 if they are in µm. By default positions are pixels of the
        section's image at full resolution, or of the slide of a ``WSIData``.
    layer
        Measured layer that the predictions estimate; None for ``X``.
    same_units
        Whether they are in its units. If not, only scores that do not depend on units are computed.
    fit_sections
        Sections on which the units are fitted, instead: measured values are regressed on the
        predictions gene by gene. They are not written, and not scored.
    training_sections
        Sections that the other tool was trained on, so that leaks are reported; an empty list if it
        saw none of these sections.
    table_name, key_added, copy
        Names of the measured table and of the new table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``tables[key_added]``, which annotates the same shapes: ``X`` (n_spots, n_genes)
        float32, the spots and genes that were matched, under their measured names;
        ``var["training_mean"]``, that of ``fit_sections``, else NaN; and
        ``uns["stpredict"]["predict"]`` with the units and the notes on the match.

    Warns
    -----
    UserWarning
        If ``same_units`` and the mean of the predictions differs from the measured mean more than
        fivefold, or fewer than half of a section's spots are matched.

    Raises
    ------
    FileNotFoundError, KeyError
        If there is no such file, table, column, layer or section.
    TypeError
        If predictions are of another type, or have columns that are no numbers.
    ValueError
        If no gene or no spot is matched, one of them is matched twice, predictions of matched spots
        are NaN, options contradict each other, or ``key_added`` is invalid or the name of another
        element or of your own table.

    Notes
    -----
    Rows with names of spots are matched by name; rows with positions, by position. A spot gets the
    mean of all tiles whose centres lie in it, as its expression is that of its whole area. If there
    is none, but it lies among the tiles (at most 0.74 times their pitch away), it gets the nearest
    one, or the mean of equally near ones. Predictions are not interpolated, because smooth ones
    score better than what the tool predicted. Genes are matched by the names or columns of ``var``
    (such as ``gene_ids``) that most genes share; versions of Ensembl ids are ignored.

    The fitted slope is positive, so that ranks, and thus correlations, are those of the tool.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> frame = sdata["table"].to_df("expected")  # as if another tool had written it
    >>> stp.io.read_predictions(sdata, frame, training_sections=[], key_added="other_tool")
    >>> scores = stp.tl.evaluate(sdata, "other_tool")
    >>> scores.genes().loc["morphology_001", "pcc"] > 0.5
    np.True_
    """
    if (x is None) != (y is None):
        raise ValueError(f"set both x= and y=, or neither: x={x!r}, y={y!r}")
    if mpp is not None:
        _validate.positive("mpp", mpp, unit="µm")
    if same_units and fit_sections is not None:
        raise ValueError("predictions in the same units need no fit: omit fit_sections=")
    spots = open_table(sdata, table_name, copy=copy)
    check_new_table(spots.sdata, key_added)
    check_measured(spots.table, spots.name)
    spots.layer(layer)  # raises if there is no such layer
    fitted = [] if fit_sections is None else _validate.name_list("fit_sections", fit_sections)
    for name in fitted:
        _validate.one_of("fit_sections", name, spots.section_names)
    layout = Layout(key, x, y, mpp)
    matched = Matched(tuple(_parts(spots, predictions, layout)), spots)
    units = Units(layer, same_units, tuple(fitted))
    table = predictions_table(matched, units, training_sections)
    spots.sdata.tables[key_added] = table
    notes = recorded(table, "predict")["notes"]
    info(f"read_predictions: {'. '.join(notes)}")
    for note in notes[1:]:
        if note.startswith("OTHER UNITS"):
            warn(f"read_predictions: {note}")
    _warn_of_few(spots, matched)
    return spots.sdata if copy else None


def _parts(spots: SpotTable, predictions: Any, layout: Layout) -> list[Part]:
    """Match the predictions of each section, or of all at once."""
    if isinstance(predictions, Mapping):
        if not predictions:
            raise ValueError("predictions= is an empty dictionary")
        return [
            Part.match(source, layout, spots, spots.section(name))
            for name, source in predictions.items()
        ]
    single = spots.sections[0] if len(spots.section_names) == 1 else None
    return [Part.match(predictions, layout, spots, single)]


def _warn_of_few(spots: SpotTable, matched: Matched) -> None:
    few = {
        part.section: f"{len(part.spots.rows)} of {len(spots.section_rows[part.section])}"
        for part in matched.parts
        if part.section and len(part.spots.rows) < len(spots.section_rows[part.section]) / 2
    }
    if few:
        names = _validate.listing(f"{name} ({share})" for name, share in few.items())
        warn(f"fewer than half of the spots are predicted in {names}: check x=, y= and mpp=")
