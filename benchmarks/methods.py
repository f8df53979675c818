"""All methods, leave-one-section-out over four sections of one HER2+ breast tumour (HER2ST C2-C5).

For every section in turn, everything is chosen and fitted on the other three: the genes, the
scaling, factors, the epoch to stop at (on one of the three), ridge's alpha. The texture encoder
learns nothing. The sections are of one patient, so scores say how well a section of a tumour is
predicted from other sections of it, not from other patients.

    python benchmarks/methods.py [--directory PATH] [--only "ridge, svd" deepspot …]
"""

from __future__ import annotations

import argparse
import datetime
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import sklearn
import torch

import stpredict as stp
from stpredict import tl

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialdata import SpatialData

    from stpredict.models import Model

SECTIONS = ["C2", "C3", "C4", "C5"]
LOCAL = Path(__file__).parents[1].parent / "shared" / "data" / "her2st"
HEST = {"context": "spot", "n_components": 256, "alpha": "hest"}
FULL = "spot_subspot_neighbors"

#: What stacks stand on.
BASES: dict[str, Callable[[SpatialData], Model]] = {
    "ridge": tl.fit_ridge,
    "ridge, svd": partial(tl.fit_ridge, targets="svd"),
    "trees, svd": partial(tl.fit_trees, targets="svd"),
}

#: A name, and what fits it on training sections.
METHODS: dict[str, Callable[[SpatialData], Model]] = {
    "ridge, spot": partial(tl.fit_ridge, context="spot"),
    "ridge, spot, svd": partial(tl.fit_ridge, context="spot", targets="svd"),
    "ridge": tl.fit_ridge,
    "ridge, svd": partial(tl.fit_ridge, targets="svd"),
    "ridge, nmf": partial(tl.fit_ridge, targets="nmf"),
    "ridge, autoencoder": partial(tl.fit_ridge, targets="autoencoder"),
    "ridge, sub-tiles, svd": partial(tl.fit_ridge, context=FULL, targets="svd"),
    "ridge, HEST's recipe, 64 components": partial(tl.fit_ridge, **HEST | {"n_components": 64}),
    "trees": tl.fit_trees,
    "trees, svd": partial(tl.fit_trees, targets="svd"),
    "deepspot": tl.fit_deepspot,
    "deepspot, svd": partial(tl.fit_deepspot, targets="svd"),
    "deepspot, nmf": partial(tl.fit_deepspot, targets="nmf"),
    "deepspot, autoencoder": partial(tl.fit_deepspot, targets="autoencoder"),
    "deepspot, mse_pearson": partial(tl.fit_deepspot, loss="mse_pearson"),
    "deepspot, pearson": partial(tl.fit_deepspot, loss="pearson"),
    "deepspot, spot": partial(tl.fit_deepspot, context="spot"),
    "deepspot, spot_subspot": partial(tl.fit_deepspot, context="spot_subspot"),
    "deepspot, spot_subspot_neighbors": partial(tl.fit_deepspot, context=FULL),
    "stack, mean of three": partial(tl.fit_stacking, bases=BASES, meta="mean"),
    "stack, ridge on three": partial(tl.fit_stacking, bases=BASES, meta="ridge"),
    "stack, mlp on three": partial(tl.fit_stacking, bases=BASES, meta="mlp"),
    "cnn, svd": partial(tl.fit_cnn, targets="svd"),
    "multiscale, svd": partial(tl.fit_multiscale, targets="svd", monitor="pearson"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--flavor", default="variance", help="of select_genes")
    parser.add_argument("--n-genes", type=int, default=250)
    parser.add_argument(
        "--stain", choices=["macenko", "vahadane", "reinhard"], help="normalise the stain first"
    )
    arguments = parser.parse_args()
    stp.settings.verbosity = 0

    sdata = stp.datasets.her2st(SECTIONS, directory=arguments.directory)
    stp.pp.filter_spots(sdata)
    stp.pp.normalize(sdata)
    if arguments.stain:
        stp.pp.normalize_stain(sdata, method=arguments.stain)
    stp.pp.embed(sdata, "texture")
    stp.pp.neighbors(sdata)
    print(
        f"{datetime.date.today()}, stpredict {stp.__version__}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}\n"
        f"HER2ST {', '.join(SECTIONS)} (one patient), {sdata.tables['table'].n_obs} spots with at "
        f"least 100 counts on tissue; leave one section out.\n"
        f"{arguments.n_genes} genes chosen on the training sections by {arguments.flavor}; texture "
        f"encoder, tiles of 112 µm; stain {arguments.stain or 'as scanned'}.\n"
        "Pearson per gene within the held-out section, mean over genes; constant genes count as 0. "
        "Shuffled: mean over sections.\n"
    )
    print(line("", [*SECTIONS, "mean", "shuffled", "epochs", "s per fit"]))
    folds = [fold(sdata, held_out, arguments) for held_out in SECTIONS]
    for number, name in enumerate(arguments.only):
        print(line(name, score(METHODS[name], folds, baselines=number == 0)), flush=True)


def score(
    fit: Callable[[SpatialData], Model],
    folds: list[tuple[SpatialData, SpatialData]],
    *,
    baselines: bool,
) -> list[str]:
    """Fit a method in every fold, and score it."""
    summaries, epochs, seconds = [], [], []
    for train, test in folds:
        start = time.perf_counter()
        model = fit(train)
        seconds.append(time.perf_counter() - start)
        tl.predict(test, model)
        summaries.append(tl.evaluate(test).attrs["summary"])
        epochs.append(str(model.training["best_epoch"] + 1) if len(model.history) else "-")
    if baselines:
        for name in ("training mean", "ridge"):
            label = f"tuned {name} on the spot" if name == "ridge" else name
            print(line(label, means(summaries, name)), flush=True)
    shuffled = f"{pd.Series([s['shuffled']['mean PCC'] for s in summaries]).mean():.3f}"
    return [
        *means(summaries, "model"),
        shuffled,
        " ".join(epochs),
        f"{sum(seconds) / len(seconds):.0f}",
    ]


def means(summaries: list[dict[str, dict[str, float]]], name: str) -> list[str]:
    """Mean PCC of every section, and over them."""
    pcc = pd.Series([summary[name]["mean PCC"] for summary in summaries])
    return [f"{value:.3f}" for value in [*pcc, pcc.mean()]]


def line(name: str, cells: list[str]) -> str:
    """Row of the table."""
    widths = [6, 6, 6, 6, 6, 9, 14, 10]
    return f"{name:36}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False)
    )


def fold(
    sdata: SpatialData, held_out: str, arguments: argparse.Namespace
) -> tuple[SpatialData, SpatialData]:
    """Training sections with their genes chosen, and the section held out."""
    train = part(sdata, [name for name in SECTIONS if name != held_out])
    stp.pp.select_genes(train, n_top=arguments.n_genes, flavor=arguments.flavor)
    return train, part(sdata, [held_out])


def part(sdata: SpatialData, names: list[str]) -> SpatialData:
    """Some of the sections."""
    elements = [element for name in names for element in (name, f"{name}_image")]
    return sdata.subset(elements, filter_tables=True)


if __name__ == "__main__":
    main()
