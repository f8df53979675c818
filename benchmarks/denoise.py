"""Measured spots without their noise: half of the reads, and the phantom's known expectation.

HER2ST: every read of a section is assigned to one of two halves at random. `tl.denoise` gets one
half, and a ridge regression on SVD factors of the other sections; the score is the mean PCC and
RMSE over 250 genes against the other half, over three draws. Compared are the half itself, the
model alone, the mean with neighbouring spots (`pp.smooth`), and the processes of `tl.denoise`
without the model: the mean of the training spots and the directions in which they vary most. With
``--section C4``, the model is fitted on C2 and C3 alone, where the noise model was chosen.

Phantom: the same against the expected expression of a new section, with a model of others.

    python benchmarks/denoise.py [--directory PATH] [--section C5]
"""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _sections import LOCAL, SECTIONS, part, ridge_of_others
from adapt import spots_alone, values_of

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._spot_table import copy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model

N_DRAWS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--section", choices=SECTIONS, default="C5")
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    print(f"{datetime.date.today()}, stpredict {stp.__version__}")
    training, new, model, trained_on = ridge_of_others(arguments.directory, arguments.section)
    draws = [halves(training, new, model, seed) for seed in range(N_DRAWS)]
    n_spots = new["table"].n_obs
    print(f"\nHER2ST {arguments.section}, {n_spots} spots, model of {', '.join(trained_on)}")
    print((sum(draws) / N_DRAWS).round(3).to_string())
    print("\nPhantom, a new section, 20 genes of morphology, against the expected expression")
    print(phantom().round(3).to_string())


def halves(training: SpatialData, new: SpatialData, model: Model, seed: int) -> pd.DataFrame:
    """Scores against one half of the reads, of which the methods got the other half."""
    counts = new["table"].X.toarray().astype(int)
    half = np.random.default_rng(seed).binomial(counts, 0.5)
    sections = []
    for reads in (half, counts - half):
        section = copy_of(new)
        section["table"].X = reads.astype(np.float32)
        stp.pp.normalize(section)
        sections.append(section)
    return scores(training, sections[0], model, values_of(sections[1], model))


def phantom() -> pd.DataFrame:
    """Scores against the expected expression of a new section."""
    sdata = stp.datasets.phantom(4)
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata)
    stp.pp.neighbors(sdata)
    training, new = part(sdata, ["S1", "S2", "S3"]), part(sdata, ["S4"])
    genes = [name for name in sdata["table"].var_names if name.startswith("morphology")]
    model = stp.tl.fit_ridge(training, genes=genes)
    expected = new["table"][:, genes].layers["expected"]
    table = scores(training, new, model, np.asarray(expected, dtype=float))
    return table.drop(columns="coverage in %")  # intervals are of measured values


def scores(
    training: SpatialData, new: SpatialData, model: Model, truth: NDArray[np.float64]
) -> pd.DataFrame:
    """Scores of all methods against some values of the same spots."""
    stp.tl.predict(new, model)
    stp.tl.denoise(new, model)
    stp.pp.smooth(new)
    denoised, genes = new["denoised"], list(model.genes)
    everywhere = np.ones(new["table"].n_obs, dtype=bool)
    values = {
        "measured": values_of(new, model),
        "model": np.asarray(new["predicted"].X),
        "mean with neighbours": new["table"][:, genes].layers["smoothed"].toarray(),
        "processes without the model": spots_alone(training, new, model, everywhere),
        "denoised": np.asarray(denoised.X),
    }
    table = pd.DataFrame(
        {
            "PCC": {name: metrics.pcc(truth, x).mean() for name, x in values.items()},
            "RMSE": {name: metrics.rmse(truth, x).mean() for name, x in values.items()},
        }
    )
    lower, upper = denoised.layers["lower"], denoised.layers["upper"]
    table.loc["denoised", "coverage in %"] = (
        100 * stp.uncertainty.coverage(truth, lower, upper).mean()
    )
    return table


if __name__ == "__main__":
    main()
