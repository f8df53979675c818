"""The session of the README: train on three sections, predict a fourth, score and draw it.

python demo.py [--directory PATH]
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt

import stpredict as stp

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.results import Scores

OUT = Path("demo")


def main() -> None:
    """Run the session."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", help="copy of the data folder of github.com/almaan/her2st")
    train, new = read_sections(parser.parse_args().directory)
    OUT.mkdir(exist_ok=True)
    mpl.use("agg")

    stp.pp.filter_spots(train)
    stp.pp.normalize(train)
    stp.pp.select_genes(train, n_top_genes=min(250, train.tables["table"].n_vars))
    stp.pp.embed(train, "texture", tile_um=[112, 224, 448])
    stp.pp.neighbors(train)
    model = stp.tl.fit_deepspot(train)
    ridge = stp.tl.fit_ridge(train)
    genes = genes_to_draw(train)
    stp.pl.loss_curve(model, save=OUT / "loss_curve.png")
    model.save(OUT / "model")

    model = stp.models.load(OUT / "model")
    stp.pp.filter_spots(new)
    stp.pp.prepare(new, model)
    stp.tl.predict(new, model)
    stp.tl.predict(new, ridge, key_added="ridge")
    scores = stp.tl.evaluate(new, ["predicted", "ridge"])
    scores.table.to_csv(OUT / "scores.csv", index=False)
    draw(new, genes)
    with warnings.catch_warnings():  # raised in the dependencies of spatialdata
        warnings.filterwarnings("ignore", "zarr v3 autosharding|Call to deprecated class Scaler")
        new.write(OUT / "predicted.zarr", overwrite=True)
    print(describe(scores, genes))


def read_sections(directory: str | None) -> tuple[SpatialData, SpatialData]:
    """Training sections and a new section."""
    try:
        return (
            stp.datasets.her2st(["C2", "C3", "C4"], directory=directory),
            stp.datasets.her2st(["C5"], directory=directory),
        )
    except ConnectionError as error:
        print(f"{error}\n\nThe demo uses SYNTHETIC sections instead.\n")
    train = stp.datasets.phantom(3, seed=1)
    new = stp.datasets.phantom(4, seed=1).subset(["S4", "S4_image"])
    return train, new


def genes_to_draw(train: SpatialData, n: int = 3) -> list[str]:
    """Genes that are best predicted in training sections left out, with different patterns.

    The new section has no part in the choice: otherwise, its picture would flatter the model.
    """
    ridge = partial(stp.tl.fit_ridge, targets="svd", n_factors=8, standardize="section")
    ranked = stp.tl.cross_validate(train, {"ridge": ridge}).genes("ridge").index
    correlation = train.tables["table"][:, ranked].to_df("log1p").corr().abs()
    genes: list[str] = []
    for gene in ranked:
        if len(genes) < n and (correlation.loc[gene, genes] < 0.3).all():
            genes.append(gene)
    return genes


def draw(new: SpatialData, genes: list[str]) -> None:
    """Draw the H&E on the left, and each gene in a column, measured above predicted."""
    figure = plt.figure(figsize=(3 + 3.6 * len(genes), 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 1 + len(genes))
    columns = range(1, 1 + len(genes))
    axes = [figure.add_subplot(grid[row, column]) for column in columns for row in (0, 1)]
    options = {"panels": ["measured", "predicted"], "spot_size": 160, "img_alpha": 0.4}
    stp.pl.prediction(new, genes, axes=axes, **options)
    image = figure.add_subplot(grid[:, 0])
    stp.pl.prediction(new, genes[0], panels=["image"], axes=[image], save=OUT / "prediction.png")


def describe(scores: Scores, genes: list[str]) -> str:
    """Summarise the scores for a new user."""
    means = scores.summary()
    pcc = scores.genes("predicted")["pcc"]
    best = ", ".join(f"{gene} {value:.2f}" for gene, value in pcc.head(5).items())
    drawn = ", ".join(f"{gene} {pcc[gene]:.2f}" for gene in genes)
    lines = [
        "",
        f"Held-out section {', '.join(scores.protocol.sections)}: Pearson correlation of predicted",
        f"and measured expression over the spots, mean over {len(pcc)} genes (1 is perfect)",
        "",
        f"  DeepSpot              {means.loc['predicted', 'pcc']:6.3f}",
        f"  ridge regression      {means.loc['ridge', 'pcc']:6.3f}   the baseline to beat",
        f"  DeepSpot, shuffled    {means.loc['predicted', 'pcc_shuffled']:6.3f}   should be near 0",
        f"  training mean         {means.loc['training_mean', 'pcc']:6.3f}   0 by definition",
        "",
        *_shared_patients(scores),
        f"  best genes: {best}",
        f"  drawn, chosen on the training sections: {drawn}",
        "",
        f"The folder {OUT}/ contains the model, predicted.zarr (tables['predicted'] and",
        "tables['ridge']), scores.csv, loss_curve.png and prediction.png",
    ]
    return "\n".join(lines)


def _shared_patients(scores: Scores) -> list[str]:
    patients = ", ".join(scores.protocol.leaking_patients)
    if not patients:
        return []
    return [
        f"  The training sections are also of patient {patients}: expect lower scores on a",
        "  section of another patient.",
        "",
    ]


if __name__ == "__main__":
    main()
