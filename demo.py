"""The session of the README: train on three sections, predict a fourth, score and show it.

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
    import pandas as pd
    from spatialdata import SpatialData

OUT = Path("demo")


def main() -> None:
    """Run the session."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", help="copy of the data folder of github.com/almaan/her2st")
    train, new, gene = sections(parser.parse_args().directory)
    OUT.mkdir(exist_ok=True)
    mpl.use("agg")

    stp.pp.filter_spots(train)
    stp.pp.normalize(train)
    stp.pp.select_genes(train, n_top_genes=min(250, train.tables["table"].n_vars))
    stp.pp.embed(train, "texture")
    stp.pp.neighbors(train)
    model = stp.tl.fit_deepspot(train, embedding="X_texture")
    stp.pl.loss_curve(model).figure.savefig(OUT / "loss_curve.png", dpi=120)
    model.save(OUT / "model")

    model = stp.models.load(OUT / "model")
    stp.pp.prepare(new, model)
    stp.tl.predict(new, model)
    scores = stp.tl.evaluate(new)
    scores.to_csv(OUT / "scores.csv")
    axes = stp.pl.prediction(new, gene)
    axes[0].figure.savefig(OUT / "prediction.png", dpi=120)
    with warnings.catch_warnings():  # what spatialdata's own dependencies will change one day
        warnings.filterwarnings("ignore", "zarr v3 autosharding|Call to deprecated class Scaler")
        new.write(OUT / "predicted.zarr", overwrite=True)
    print(table(scores, new, gene))


def sections(directory: str | None) -> tuple[SpatialData, SpatialData, str]:
    """Training sections, a new one, and a gene to look at."""
    try:
        return (
            stp.datasets.her2st(["C2", "C3", "C4"], directory=directory),
            stp.datasets.her2st(["C5"], directory=directory),
            "ERBB2",
        )
    except ConnectionError as error:
        print(f"{error}\n\nNo real sections: the demo runs on a SYNTHETIC phantom instead.\n")
    drawn = [stp.datasets.phantom(4, seed=1), stp.datasets.phantom(4, seed=1)]
    names = [["S1", "S2", "S3"], ["S4"]]
    train, new = (
        some.subset([e for name in kept for e in (name, f"{name}_image")], filter_tables=True)
        for some, kept in zip(drawn, names, strict=True)
    )
    return train, new, str(train.tables["table"].var_names[0])


def table(scores: pd.DataFrame, new: SpatialData, gene: str) -> str:
    """What came out, for a newcomer."""
    of = scores.attrs["summary"]
    section = ", ".join(new.shapes)
    lines = [
        "",
        f"Section {section}, which the model has not seen: correlation of predicted and measured",
        f"expression over the spots, mean of {len(scores)} genes (1: perfect, 0: nothing)",
        "",
        f"  DeepSpot                     {of['model']['mean PCC']:6.3f}",
        f"  ridge on the same embedding  {of['ridge']['mean PCC']:6.3f}   the baseline to beat",
        f"  shuffled embedding           {of['shuffled']['mean PCC']:6.3f}   must be near 0",
        f"  mean of the training spots   {of['training mean']['mean PCC']:6.3f}   0 by definition",
        "",
        f"  best genes: {', '.join(f'{g} {s:.2f}' for g, s in scores['pcc'].head(5).items())}",
        f"  {gene}: {scores.loc[gene, 'pcc']:.2f}",
        "",
        f"In {OUT}/: the model, predicted.zarr (tables['predicted']), scores.csv, loss_curve.png,",
        "prediction.png",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
