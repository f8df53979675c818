"""A few measured spots on a new section: HER2ST C5, with a model of C2 to C4.

Ridge regression on SVD factors is fitted on sections C2 to C4. Of C5, a share of the spots is drawn
as measured, five times, and the others are scored: mean PCC and RMSE over 250 genes of the model
alone, of `tl.adapt`, and of the same measured spots without the model. The last has the same
processes, and in place of the model the mean of the training spots and the directions in which they
vary most. With ``--section C4``, the model is fitted on C2 and C3 alone: the constants of
`tl.adapt` were set on C2, C3 and C4 in this way.

    python benchmarks/adapt.py [--directory PATH] [--section C5]
"""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _sections import LOCAL, SECTIONS, ridge_of_others

import stpredict as stp
from stpredict import metrics
from stpredict._sdata._spacing import spacing_of
from stpredict._sdata._spot_table import open_table
from stpredict.tl._adaptation import _correct
from stpredict.tl._adaptation._measured import read_measured
from stpredict.tl._adaptation._process import Places, standardised

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict.models import Model

SHARES = (0.05, 0.1, 0.2, 0.5)
N_DRAWS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--section", choices=SECTIONS, default="C5")
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    training, new, model, trained_on = ridge_of_others(arguments.directory, arguments.section)
    print(
        f"{datetime.date.today()}, stpredict {stp.__version__}. Model of {', '.join(trained_on)}, "
        f"{arguments.section} of {new['table'].n_obs} spots, {len(model.genes)} genes, "
        f"{N_DRAWS} draws. Mean over draws (standard deviation); scores of spots not measured.\n"
    )
    rows = [
        score(training, new, model, share=share, seed=seed)
        for share in SHARES
        for seed in range(N_DRAWS)
    ]
    show(pd.DataFrame(rows))


def score(
    training: SpatialData, new: SpatialData, model: Model, *, share: float, seed: int
) -> dict[str, float]:
    """Scores of one draw of measured spots."""
    n_obs = new["table"].n_obs
    random = np.random.default_rng([seed, round(100 * share)])
    mask = np.zeros(n_obs, dtype=bool)
    mask[random.permutation(n_obs)[: round(share * n_obs)]] = True
    stp.tl.predict(new, model)
    stp.tl.adapt(new, model, measured=mask)
    measured = values_of(new, model)
    adapted = new["adapted"]
    predictions = {
        "model": np.asarray(new["predicted"].X),
        "adapted": np.asarray(adapted.X),
        "spots alone": spots_alone(training, new, model, mask),
    }
    scores: dict[str, float] = {"share": share, "measured": int(mask.sum())}
    for name, predicted in predictions.items():
        scores[f"PCC {name}"] = metrics.pcc(measured[~mask], predicted[~mask]).mean()
        scores[f"RMSE {name}"] = metrics.rmse(measured[~mask], predicted[~mask]).mean()
    lower, upper = adapted.layers["lower"][~mask], adapted.layers["upper"][~mask]
    scores["coverage in %"] = 100 * stp.uncertainty.coverage(measured[~mask], lower, upper).mean()
    scores["width"] = (upper - lower).mean()
    return scores


def values_of(sdata: SpatialData, model: Model) -> NDArray[np.float64]:
    """Measured expression of the model's genes."""
    return sdata["table"][:, list(model.genes)].layers["log1p"].toarray().astype(np.float64)


def spots_alone(
    training: SpatialData, new: SpatialData, model: Model, mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The same processes without the model: training mean, and directions of training spots."""
    expression = values_of(training, model)
    section = open_table(new).sections[0]
    embedding = np.asarray(new["table"].obsm["X_texture"], dtype=np.float32)
    places = Places(
        section.centers_um / spacing_of(section.centers_um).pitch_um, standardised(embedding)
    )
    spots = read_measured(open_table(new), model, mask)
    corrected = _correct.correct(
        places,
        spots.rows,
        np.tile(expression.mean(axis=0), (len(mask), 1)),
        spots.values,
        directions=_correct.main_directions(expression),
        nonnegative=True,
        noise=spots.noise,
    )
    return corrected.values


def show(scores: pd.DataFrame) -> None:
    """Print means and standard deviations over draws."""
    by_share = scores.groupby("share")
    mean, deviation = by_share.mean(), by_share.std()
    for name in mean.columns:
        cells = [
            f"{value:8.3f} ({spread:.3f})"
            for value, spread in zip(mean[name], deviation[name], strict=True)
        ]
        print(f"{name:18}" + "".join(cells))
    for other in ("model", "spots alone"):
        is_better = scores["PCC adapted"] > scores[f"PCC {other}"]
        counts = is_better.groupby(scores["share"]).sum().tolist()
        print(f"draws of {N_DRAWS} in which adapted is better than {other}: {counts}")


if __name__ == "__main__":
    main()
