"""All methods, leave-one-section-out over four sections of one HER2+ breast tumour (HER2ST C2-C5).

For every section in turn, everything is selected and fitted on the other three: the genes, the
scaling, factors, the epoch to stop at (on one of the three), ridge's alpha; for tuned methods, the
hyperparameters too. The texture encoder is not trained. All sections are of one patient, so the
scores show how well a section is predicted from other sections of the same tumour, not from other
patients.

    python benchmarks/methods.py [--directory PATH] [--only ridge deepspot …] [--folder RUN]
                                 [--rings 2] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import platform
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from _sections import FIELDS_UM, LOCAL, read_sections

import stpredict as stp
from stpredict import tl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model
    from stpredict.results import Scores

FULL = "spot_subspot_neighbors"
JOINED = "texture+efficientnet_lite0"
#: Encoder and fields of the embeddings that are computed for the methods that use them.
EMBEDDINGS: dict[str, tuple[str, float | list[float]]] = {
    "X_texture_112": ("texture", 112.0),
    "X_efficientnet_112": ("efficientnet_lite0", 112.0),
    "X_efficientnet_224": ("efficientnet_lite0", FIELDS_UM[:2]),
    "X_random_conv_112": ("random_conv", 112.0),
    "X_joined_112": (JOINED, 112.0),
    "X_joined": (JOINED, FIELDS_UM),
}

ridge_hest = partial(tl.fit_ridge, context="spot", alpha="hest")
ridge_section = partial(tl.fit_ridge, targets="svd", standardize="section")
trees_section = partial(tl.fit_trees, targets="svd", standardize="section")
PUBLISHED = tl.DeepSpotNetwork(n_hidden=512, n_phi=10, n_networks=1)
ONE = tl.DeepSpotNetwork(n_networks=1)

#: Sections of other benchmarks follow this line of the page.
END = "<!-- end of the part written by benchmarks/methods.py -->"

#: Bases of the stacks.
BASES: dict[str, Callable[[SpatialData], Model]] = {
    "deepspot": tl.fit_deepspot,
    "ridge": ridge_section,
    "trees": trees_section,
}
#: Candidates for DeepSpot, tuned within the training sections.
CANDIDATES: dict[str, Callable[[SpatialData], Model]] = {
    f"{n_hidden} wide, {targets}": partial(tl.fit_deepspot, targets=targets, network=network)
    for (n_hidden, network), targets in product(((96, ONE), (512, PUBLISHED)), ("genes", "svd"))
}

#: Candidates for ridge regression.
FACTORS: dict[str, Callable[[SpatialData], Model]] = {
    "genes": tl.fit_ridge,
    **{
        f"{n} {kind} factors": partial(tl.fit_ridge, targets=kind, n_factors=n)
        for kind, n in (("svd", 3), ("svd", 5), ("svd", 8), ("svd", 12), ("svd", 20), ("nmf", 8))
    },
}

METHODS: dict[str, Callable[[SpatialData], Model]] = {
    "ridge_spot": partial(tl.fit_ridge, context="spot"),
    "ridge_spot_svd": partial(tl.fit_ridge, context="spot", targets="svd"),
    "ridge": tl.fit_ridge,
    "ridge_svd": partial(tl.fit_ridge, targets="svd"),
    "ridge_svd_112": partial(tl.fit_ridge, targets="svd", embedding="X_texture_112"),
    "ridge_nmf": partial(tl.fit_ridge, targets="nmf"),
    "ridge_tuned": partial(tl.fit_tuned, candidates=FACTORS),
    "ridge_autoencoder": partial(tl.fit_ridge, targets="autoencoder"),
    "ridge_subtiles_svd": partial(tl.fit_ridge, context=FULL, targets="svd"),
    # the embedding has 252 features, so fewer components than the 256 of HEST-bench
    "ridge_hest_64": partial(ridge_hest, n_components=64),
    # features standardised within each section
    "ridge_section": ridge_section,
    **{
        f"ridge_section_{slot.removeprefix('X_')}": partial(ridge_section, embedding=slot)
        for slot in EMBEDDINGS
    },
    "trees": tl.fit_trees,
    "trees_svd": partial(tl.fit_trees, targets="svd"),
    "trees_section": trees_section,
    "deepspot": tl.fit_deepspot,
    "deepspot_112": partial(tl.fit_deepspot, embedding="X_texture_112"),
    "deepspot_joined": partial(tl.fit_deepspot, embedding="X_joined"),
    "deepspot_joined_svd": partial(tl.fit_deepspot, embedding="X_joined", targets="svd"),
    "deepspot_training": partial(tl.fit_deepspot, standardize="training"),
    "deepspot_one": partial(tl.fit_deepspot, network=ONE),
    "deepspot_wide": partial(tl.fit_deepspot, network=PUBLISHED),
    # the default up to version 0.1
    "deepspot_published": partial(
        tl.fit_deepspot, embedding="X_texture_112", standardize="training", network=PUBLISHED
    ),
    "deepspot_stop_by_loss": partial(tl.fit_deepspot, schedule=tl.Schedule(monitor="loss")),
    "deepspot_svd": partial(tl.fit_deepspot, targets="svd"),
    "deepspot_nmf": partial(tl.fit_deepspot, targets="nmf"),
    "deepspot_autoencoder": partial(tl.fit_deepspot, targets="autoencoder"),
    "deepspot_pairs": partial(tl.fit_deepspot, loss="mse_pairwise_spots"),
    "deepspot_mse_pearson": partial(tl.fit_deepspot, loss="mse_pearson"),
    "deepspot_pearson": partial(tl.fit_deepspot, loss="pearson"),
    "deepspot_spot": partial(tl.fit_deepspot, context="spot"),
    "deepspot_full": partial(tl.fit_deepspot, context=FULL),
    "deepspot_tuned": partial(tl.fit_tuned, candidates=CANDIDATES),
    "stack_mean": partial(tl.fit_stacking, bases=BASES, meta="mean"),
    "stack_ridge": partial(tl.fit_stacking, bases=BASES, meta="ridge"),
    "stack_mlp": partial(tl.fit_stacking, bases=BASES, meta="mlp"),
    "stack_joined": partial(
        tl.fit_stacking,
        bases={name: partial(fit, embedding="X_joined") for name, fit in BASES.items()},
        meta="mean",
    ),
    "cnn_svd": partial(tl.fit_cnn, targets="svd"),
    # a third of the default epochs: without a GPU, each takes most of a minute
    "multiscale_svd": partial(
        tl.fit_multiscale,
        targets="svd",
        schedule=tl.Schedule(
            max_epochs=10, batch_size=32, weight_decay=1e-3, decay="cosine", monitor="pearson"
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", help="folder for finished folds")
    parser.add_argument("--flavor", default="variance", help="flavor of select_genes")
    parser.add_argument("--n-genes", type=int, default=250)
    parser.add_argument(
        "--stain", choices=["macenko", "vahadane", "reinhard"], help="normalise the stain first"
    )
    parser.add_argument("--rings", type=int, default=1, help="rings of neighbours")
    parser.add_argument("--write", type=Path, help="page of the documentation to write")
    arguments = parser.parse_args()
    stp.settings.verbosity = 0

    sdata = read_sections(arguments.directory)
    stp.pp.select_genes(sdata, n_top_genes=arguments.n_genes, flavor=arguments.flavor)
    if arguments.stain:
        stp.pp.normalize_stain(sdata, method=arguments.stain)
    stp.pp.embed(sdata, "texture", tile_um=FIELDS_UM, n_subtiles=3)
    fits = [METHODS[name] for name in arguments.only]
    for slot, (encoder, tile_um) in EMBEDDINGS.items():
        if any(repr(slot) in repr(fit) for fit in fits):
            stp.pp.embed(sdata, encoder, tile_um=tile_um, key_added=slot)
    stp.pp.neighbors(sdata, n_rings=arguments.rings)
    stp.settings.verbosity = 1
    scores = tl.cross_validate(
        sdata, {name: METHODS[name] for name in arguments.only}, folder=arguments.folder
    )
    table = score_table(scores)
    text = f"{describe(scores, arguments.stain)}\n\n{table.to_string()}\n\n{differences(scores)}"
    print(f"\n{text}")
    if arguments.write:
        write(scores, table, arguments)


def score_table(scores: Scores) -> pd.DataFrame:
    """Mean PCC of every section and over sections, with nulls, baselines and ceiling."""
    by_section = scores.values().groupby("section").mean().T
    table = by_section.round(3).assign(mean=by_section.mean(axis=1).round(3))
    summary = scores.summary()
    table["of ceiling"] = (by_section.mean(axis=1) / by_section.loc["noise_ceiling"].mean()).map(
        "{:.0%}".format
    )
    for column, name in (("pcc_shuffled", "shuffled"), ("pcc_spatial_null", "moved")):
        table[name] = summary[column].round(3)
    table["spearman per spot"] = summary["spearman_per_spot"].round(3)
    table["rmse"] = summary["rmse"].round(3)
    seconds = pd.Series(scores.seconds) / len(scores.protocol.folds)
    table["s per fold"] = seconds.map("{:.1f}".format)
    order = sorted(scores.methods, key=lambda name: -table.loc[name, "mean"])
    return table.loc[[*order, *(name for name in table.index if name not in order)]]


def describe(scores: Scores, stain: str | None) -> str:
    """Date, protocol, inputs, versions and machine."""
    protocol = scores.protocol
    versions = ", ".join(f"{name} {number}" for name, number in protocol.versions.items())
    return (
        f"{protocol.date}. {protocol} Texture encoder on tiles of 112, 224 and 448 µm unless "
        f"named (*112*, *224*: the largest side; *joined*: with EfficientNet-Lite0); stain "
        f"{stain or 'as scanned'}. {versions}. {machine()}."
    )


def machine() -> str:
    """Hardware of the measurement."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = torch.get_num_threads()
    return f"{platform.machine()}, {os.cpu_count()} cores, threads per fit: {threads}, {gpu}"


def differences(scores: Scores) -> str:
    """Difference of every method from tuned ridge, in words."""
    order = scores.summary()["pcc"][list(scores.methods)].sort_values(ascending=False).index
    return "\n".join(f"- {scores.compare(name)}{verdict(scores, name)}" for name in order)


def verdict(scores: Scores, name: str) -> str:
    """Interpretation of the interval."""
    comparison = scores.compare(name)
    if comparison.high < 0:
        return ": **worse than tuned ridge**"
    return "" if comparison.low > 0 else ": statistically indistinguishable from tuned ridge"


def cell(value: object) -> str:
    """Text of a cell of the table."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown of a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(scores: Scores, table: pd.DataFrame, arguments: argparse.Namespace) -> None:
    """Write a page with the table, the differences and the picture."""
    picture = arguments.write.parent / "_static" / "methods.png"
    figure, ax = plt.subplots(figsize=(8, 0.34 * len(table) + 1.6), layout="constrained")
    stp.pl.metrics(scores, ax=ax)
    figure.savefig(picture, dpi=110)
    # long names break at underscores, so that the table fits the page
    names = table.index.str.replace("_", "_<wbr>")
    rows = [[name, *map(cell, row)] for name, row in zip(names, table.to_numpy(), strict=True)]
    shown = markdown_table(["method", *table.columns], rows)
    page = arguments.write.read_text(encoding="utf-8") if arguments.write.exists() else ""
    arguments.write.write_text(
        "<!-- written by benchmarks/methods.py -->\n\n"
        "# Benchmarks\n\n"
        "Scores of all methods on held-out sections, measured and written by "
        "`benchmarks/methods.py`. [](methods.md) describes the methods and when to use each.\n\n"
        f"{describe(scores, arguments.stain)}\n\n"
        "`tuned_ridge` sees only the spot's own tile. `neighbor_mean` is the mean of the "
        "*measured* neighbours, which no model is given. `noise_ceiling` is the highest "
        "correlation that counting noise allows, and *of ceiling* the share of it that a method "
        "reaches. *Shuffled* and *moved* are the PCC of predictions shuffled among the spots of a "
        "section, and of predictions moved within it as a whole. All sections are from one "
        "patient; other patients are harder to predict.\n\n"
        f"{shown}\n\n"
        f"```{{image}} _static/{picture.name}\n"
        ":alt: PCC of genes by method, with nulls and noise ceiling\n```\n\n"
        "## Against tuned ridge\n\n"
        "Intervals are from a bootstrap over the four sections. With four sections, the smallest "
        "possible p-value is .125.\n\n"
        f"{differences(scores)}\n\n{END}{page.partition(END)[2]}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
