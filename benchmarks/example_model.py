"""The example model of the package: train it again, score it, and compare it with the stored one.

The method is chosen, and the model calibrated, by leaving out one of the sections C2, C3 and C4
of HER2ST at a time. The model is then fitted to all three, and section C5 is predicted.

    python benchmarks/example_model.py [--directory PATH] [--write]

``--write`` replaces the stored model.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import scanpy as sc
from _sections import FIELDS_UM, LOCAL, SECTIONS, read_sections

import stpredict as stp
from stpredict import tl
from stpredict.models._card import _SCORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model
    from stpredict.results import Scores

FOLDER = Path(stp.__file__).parent / "datasets" / "example_model"
*TRAINING, NEW = SECTIONS
#: Least share of training spots with counts of a gene. Factors are saved for all other genes; with
#: rare genes, the model is larger and predicts no better.
LEAST_SHARE = 0.1
FLAVOR: Literal["pearson_residuals"] = "pearson_residuals"

#: Features are not standardised within each section, although that predicts C5 better (0.409):
#: other tissue, such as a phantom's, would then look familiar, and its predictions reliable.
METHODS: dict[str, Callable[[SpatialData], Model]] = {
    "genes": tl.fit_ridge,
    "factors": partial(tl.fit_ridge, targets="svd"),
}

ABOUT = """
## The example of stpredict

This model is part of stpredict, for trying the package. `benchmarks/example_model.py` made it.

- data: sections {training} of HER2ST, one HER2-positive breast tumour, Andersson et al., Spatial
  deconvolution of HER2-positive breast cancer delineates tumor-associated cell type interactions,
  Nature Communications 2021, doi:10.1038/s41467-021-26271-2, licence CC-BY 4.0
- protocol: {n_genes} genes selected in {training} ({flavor}); ridge regression on genes or on SVD
  factors, whichever predicts sections left out of {training} better; intervals and reliable genes
  from the predictions of these sections; {new} had no part in any of this
- section {new}: mean Pearson correlation over genes {pcc:.3f}, shuffled {shuffled:.3f}, mean of
  the measured neighbours {neighbors:.3f}, noise ceiling {ceiling:.3f}
- {new} is of the same patient: expect lower scores in other patients. The model is not meant for
  other tissue, other stains or other platforms.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--write", action="store_true", help="replace the stored model")
    arguments = parser.parse_args()
    model = train(read_training(arguments.directory))
    new = read_sections(arguments.directory, [NEW])
    stp.pp.prepare(new, model)
    predicted = predict(new, model)
    scores = tl.evaluate(new)
    if arguments.write:
        write(model, scores)
    difference = np.abs(predict(new, stp.datasets.example_model()) - predicted).max()
    n_bytes = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{model}\nstored: {n_bytes:,} bytes; largest difference in {NEW}: {difference:.2g}")


def read_training(directory: str | Path | None) -> SpatialData:
    """Training sections with everything that the methods read."""
    training = read_sections(directory, TRAINING)
    table = training.tables["table"]
    sc.pp.filter_genes(table, min_cells=round(LEAST_SHARE * table.n_obs))
    stp.pp.select_genes(training, n_top_genes=250, flavor=FLAVOR)
    stp.pp.embed(training, "texture", tile_um=FIELDS_UM)
    stp.pp.neighbors(training)
    return training


def train(training: SpatialData) -> Model:
    """Fit and calibrate the method that predicts training sections best that are left out."""
    pcc = tl.cross_validate(training, METHODS).summary().loc[list(METHODS), "pcc"]
    print(f"left out of {', '.join(TRAINING)}: {pcc.round(4).to_dict()}")
    return tl.calibrate(training, METHODS[str(pcc.idxmax())](training))


def predict(new: SpatialData, model: Model) -> NDArray[np.float32]:
    """Predictions of a model for sections that are prepared for it."""
    tl.predict(new, model)
    return np.asarray(new.tables["predicted"].X)


def write(model: Model, scores: Scores) -> None:
    """Save a model to the package, and describe its data and its scores."""
    model.save(FOLDER)
    summary = scores.summary()
    about = ABOUT.format(
        training=", ".join(TRAINING),
        new=NEW,
        n_genes=len(model.genes),
        flavor=FLAVOR.replace("_", " "),
        pcc=summary.loc["predicted", "pcc"],
        shuffled=summary.loc["predicted", "pcc_shuffled"],
        neighbors=summary.loc["neighbor_mean", "pcc"],
        ceiling=summary.loc["noise_ceiling", "pcc"],
    )
    card = FOLDER / "README.md"
    text = card.read_text(encoding="utf-8").replace(f"{_SCORES}\n\n", "")
    card.write_text(text + about, encoding="utf-8")


if __name__ == "__main__":
    main()
