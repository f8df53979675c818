"""The session of the README: train on three sections, predict a fourth, score and draw it.

python demo.py [--directory PATH]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

import stpredict as stp

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stpredict.results import Scores

OUT = Path("demo")


def main() -> None:
    """Run the session."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", help="copy of the data folder of github.com/almaan/her2st")
    train, new, gene = read_sections(parser.parse_args().directory)
    OUT.mkdir(exist_ok=True)
    mpl.use("agg")

    stp.pp.filter_spots(train)
    stp.pp.normalize(train)
    stp.pp.select_genes(train, n_top_genes=min(250, train.tables["table"].n_vars))
    stp.pp.embed(train, "texture", tile_um=[112, 224, 448])
    stp.pp.neighbors(train)
    model = stp.tl.fit_deepspot(train)
    ridge = stp.tl.fit_ridge(train)
    stp.pl.loss_curve(model, save=OUT / "loss_curve.png")
    model.save(OUT / "model")

    model = stp.models.load(OUT / "model")
    stp.pp.prepare(new, model)
    stp.tl.predict(new, model)
    stp.tl.predict(new, ridge, key_added="ridge")
    scores = stp.tl.evaluate(new, ["predicted", "ridge"])
    scores.table.to_csv(OUT / "scores.csv", index=False)
    stp.pl.prediction(new, gene, save=OUT / "prediction.png")
    with warnings.catch_warnings():  # raised in the dependencies of spatialdata
        warnings.filterwarnings("ignore", "zarr v3 autosharding|Call to deprecated class Scaler")
        new.write(OUT / "predicted.zarr", overwrite=True)
    print(describe(scores, gene))


def read_sections(directory: str | None) -> tuple[SpatialData, SpatialData, str]:
    """Training sections, a new section, and a gene to draw."""
    try:
        return (
            stp.datasets.her2st(["C2", "C3", "C4"], directory=directory),
            stp.datasets.her2st(["C5"], directory=directory),
            "ERBB2",
        )
    except ConnectionError as error:
        print(f"{error}\n\nThe demo uses SYNTHETIC sections instead.\n")
    train = stp.datasets.phantom(3, seed=1)
    new = stp.datasets.phantom(4, seed=1).subset(["S4", "S4_image"])
    return train, new, str(train.tables["table"].var_names[0])


def describe(scores: Scores, gene: str) -> str:
    """Summarise the scores for a new user."""
    means = scores.summary()
    genes = scores.genes("predicted")["pcc"]
    best = ", ".join(f"{name} {pcc:.2f}" for name, pcc in genes.head(5).items())
    lines = [
        "",
        f"Held-out section {', '.join(scores.protocol.sections)}: Pearson correlation of predicted",
        f"and measured expression over the spots, mean over {len(genes)} genes (1 is perfect)",
        "",
        f"  DeepSpot              {means.loc['predicted', 'pcc']:6.3f}",
        f"  ridge regression      {means.loc['ridge', 'pcc']:6.3f}   the baseline to beat",
        f"  DeepSpot, shuffled    {means.loc['predicted', 'pcc_shuffled']:6.3f}   should be near 0",
        f"  training mean         {means.loc['training_mean', 'pcc']:6.3f}   0 by definition",
        "",
        f"  best genes: {best}",
        f"  {gene}: {genes[gene]:.2f}",
        "",
        f"The folder {OUT}/ contains the model, predicted.zarr (tables['predicted'] and",
        "tables['ridge']), scores.csv, loss_curve.png and prediction.png",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
