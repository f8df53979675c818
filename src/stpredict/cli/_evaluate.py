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
        list[Path],
        typer.Argument(metavar="MODEL...", help="Folders of saved models.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="CSV file for the scores by gene and section.")
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Predict measured sections and score the predictions, with nulls and noise ceiling."""
    import stpredict as stp
    from stpredict import _validate

    names = [folder.resolve().name for folder in models]
    _validate.unique_names(names, what="names of the models' folders")
    sdata = read_sections(sections)
    for name, folder in zip(names, models, strict=True):
        model = stp.models.load(folder)
        stp.pp.prepare(sdata, model, weights=weights, device=device)
        stp.tl.predict(sdata, model, key_added=name, device=device)
    scores = stp.tl.evaluate(sdata, names)
    print(scores.summary().round(3).to_string())
    if out is not None:
        scores.table.to_csv(out, index=False)


evaluate = Command(
    _evaluate,
    ("stpredict evaluate new_sections.zarr deepspot_her2 ridge_her2 --out scores.csv",),
)
