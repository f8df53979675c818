"""``stpredict train``."""

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


def _train(
    sections: Sections,
    out: Annotated[Path, typer.Option(help="Folder of the new model.", show_default=False)],
    method: Annotated[Method, typer.Option(help="Method.")] = Method.DEEPSPOT,
    encoder: Encoder = "texture",
    weights: Weights = None,
    n_top_genes: NTopGenes = 250,
    standardize: Standardization = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Device = "auto",
) -> None:
    """Train a model on measured sections.

    Normalisation, genes, embedding and neighbours are computed where the sections lack them. The
    file of the sections is not changed.
    """
    fit = fit_function(method, encoder=encoder, standardize=standardize, seed=seed, device=device)
    sdata = read_sections(sections)
    prepare_training(
        sdata, [method], encoder=encoder, weights=weights, n_top_genes=n_top_genes, device=device
    )
    model = fit(sdata)
    model.save(out)
    print(model)


train = Command(_train, ("stpredict train sections.zarr --method deepspot --out deepspot_her2",))
