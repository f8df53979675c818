"""``stpredict evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpredict.cli._command import Command, Device, Sections
from stpredict.cli._sections import Weights, read_sections


def _evaluate(
    sections: Sections,
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL...]", help="Folders of saved models.", show_default=False),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Predictions of another tool (.csv, .tsv, .h5ad), of spots by name or, for one "
            "section, by position in pixels; may be repeated.",
            show_default=False,
        ),
    ] = None,
    allow_smoothed: Annotated[
        bool,
        typer.Option(
            "--allow-smoothed",
            help="Score against a layer that was smoothed, imputed or denoised; scores are marked.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="CSV file for the scores by gene and section.")
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Predict measured sections and score the predictions, with nulls and noise ceiling.

    Predictions of other tools, one column per gene, are scored on the same spots. Their units are
    not known, so that they have only the scores that do not depend on units.
    """
    import stpredict as stp
    from stpredict import _keys, _validate

    folders = {folder: folder.resolve().name for folder in models or []}
    files = {file: file.name.split(".")[0] for file in predictions or []}
    names = [*folders.values(), *files.values()]
    if not names:
        raise ValueError("nothing to score: give folders of models, or --predictions")
    _validate.unique_names(names, what="names of the models' folders and of the predictions")
    sdata = read_sections(sections)
    if _keys.LOG1P not in sdata.tables[_keys.TABLE].layers:
        stp.pp.normalize(sdata)
    for file, name in files.items():
        stp.io.read_predictions(sdata, file, key_added=name)
    for folder, name in folders.items():
        model = stp.models.load(folder)
        stp.pp.prepare(sdata, model, weights=weights, device=device)
        stp.tl.predict(sdata, model, key_added=name, device=device)
    scores = stp.tl.evaluate(sdata, names, allow_smoothed=allow_smoothed)
    print(scores.summary().round(3).to_string())
    if out is not None:
        scores.table.to_csv(out, index=False)


evaluate = Command(
    _evaluate,
    (
        "stpredict evaluate new_sections.zarr deepspot_her2 ridge_her2 --out scores.csv",
        "stpredict evaluate new_sections.zarr deepspot_her2 --predictions other_tool.csv",
    ),
)
