"""``stpredict report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpredict.cli._command import Command, Device, Sections
from stpredict.cli._sections import (
    Encoder,
    Method,
    NTopGenes,
    Standardization,
    Weights,
    fit_function,
    prepare_training,
    read_sections,
)


def _report(
    sections: Sections,
    out: Annotated[Path, typer.Option(help="HTML file of the report.", show_default=False)],
    method: Annotated[list[Method], typer.Option(help="Method; may be repeated.")] = [  # noqa: B006 typer copies it
        Method.DEEPSPOT
    ],
    encoder: Encoder = "texture",
    weights: Weights = None,
    n_top_genes: NTopGenes = 250,
    standardize: Standardization = None,
    groups: Annotated[
        str | None, typer.Option(help="Column of obs whose groups are left out in turn.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for finished folds, to continue from.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Device = "auto",
) -> None:
    """Cross-validate methods on measured sections and write the HTML report.

    Patients, or else sections, are left out in turn. The file of the sections is not changed.
    """
    import stpredict as stp

    methods = {
        name.value: fit_function(
            name, encoder=encoder, standardize=standardize, seed=seed, device=device
        )
        for name in method
    }
    sdata = read_sections(sections)
    prepare_training(
        sdata, method, encoder=encoder, weights=weights, n_top_genes=n_top_genes, device=device
    )
    scores = stp.tl.cross_validate(
        sdata, methods, groups=groups, folder=folder, seed=seed, device=device
    )
    stp.report.write_html(sdata, scores, out)
    print(scores.summary().round(3).to_string())


report = Command(
    _report,
    ("stpredict report sections.zarr --method deepspot --method ridge --out report.html",),
)
