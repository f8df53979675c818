"""Ways to make a model robust to shifts, compared within training sections.

Ridge regression on 8 SVD factors of 250 genes is fitted to two sections of HER2ST and scored on
each of the other two, as scanned and shifted: 12 splits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from _sections import FIELDS_UM
from scipy.stats import norm, rankdata
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import stpredict as stp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

    Matrix = NDArray[np.floating]

#: The texture encoder names the features of its finest scale so.
FINEST = "0.5um"
N_FACTORS, N_GENES, N_EXPRESSED = 8, 250, 1000
ALPHAS = (1e3, 3e3, 1e4, 3e4, 1e5)
#: Shifts of the copies of training sections, half of the kinds of shift each.
COPIES = {
    "copies: defocus, haematoxylin × 1.6, brighter": (
        "defocus, σ = 2 µm",
        "haematoxylin × 1.6, eosin × 0.7",
        "brighter scanner, strong colours",
    ),
    "copies: JPEG, haematoxylin × 0.6, darker": (
        "JPEG of quality 15",
        "haematoxylin × 0.6, eosin × 1.4",
        "darker scanner, pale colours",
    ),
}


def by_moments(values: Matrix) -> Matrix:
    return divided(values - values.mean(axis=0), values.std(axis=0))


def by_quartiles(values: Matrix) -> Matrix:
    low, median, high = np.percentile(values, [25, 50, 75], axis=0)
    # the quartiles of a normal distribution are 1.349 standard deviations apart
    return np.clip(divided(values - median, (high - low) / 1.349), -6, 6)


def by_ranks(values: Matrix) -> Matrix:
    scores = norm.ppf((rankdata(values, axis=0) - 0.5) / len(values))
    return np.where(values.std(axis=0) > 1e-6, scores, 0)


def divided(values: Matrix, scale: Matrix) -> Matrix:
    constant = scale < 1e-6
    return np.where(constant, 0, values / np.where(constant, 1, scale))


def first_field(values: Matrix) -> Matrix:
    return values[:, : values.shape[1] // len(FIELDS_UM)]


def without_finest(values: Matrix) -> Matrix:
    names = stp.encoders.load("texture").function.feature_names
    coarser = [FINEST not in name for name in names]
    return by_moments(values)[:, np.tile(coarser, len(FIELDS_UM))]


#: Standardisation of the features (n, d) of a section, and copies of the training sections.
VARIANTS: dict[str, tuple[Callable[[Matrix], Matrix], tuple[str, ...]]] = {
    "mean and deviation of training, 112 µm": (first_field, ()),
    "mean and deviation of the section": (by_moments, ()),
    "median and quartiles of the section": (by_quartiles, ()),
    "quantiles of the section": (by_ranks, ()),
    "the section's, no features of 0.5 µm": (without_finest, ()),
    **{f"the section's, {name}": (by_moments, copies) for name, copies in COPIES.items()},
}


def scores(
    spots: SpotTable, embeddings: dict[str, dict[str, Matrix]], shifts: list[str]
) -> Iterator[dict[str, object]]:
    """PCC of every variant, split and shift."""
    expression = spots.layer("log1p").toarray()
    rows = spots.section_rows
    graphs = {name: (spots.graph[index][:, index] > 0) * 1.0 for name, index in rows.items()}

    def features(name: str, shift: str, standardise: Callable[[Matrix], Matrix]) -> Matrix:
        values = standardise(embeddings[name][shift].astype(np.float64))
        n_neighbors = np.maximum(graphs[name].sum(axis=1), 1)
        return np.hstack([values, np.asarray(graphs[name] @ values) / np.asarray(n_neighbors)])

    for pair in combinations(rows, 2):
        measured = np.vstack([expression[rows[name]] for name in pair])
        genes = np.argsort(-measured.mean(axis=0))[:N_EXPRESSED]
        mean = measured[:, genes].mean(axis=0)
        directions = np.linalg.svd(measured[:, genes] - mean, full_matrices=False)[2][:N_FACTORS]
        variable = np.argsort(-measured[:, genes].var(axis=0))[:N_GENES]
        for variant, (standardise, copies) in VARIANTS.items():
            parts = [(name, shift) for name in pair for shift in (shifts[0], *copies)]
            x = np.vstack([features(*part, standardise) for part in parts])
            factors = [
                (expression[rows[name]][:, genes] - mean) @ directions.T for name, _ in parts
            ]
            groups = np.concatenate([np.repeat(name, len(rows[name])) for name, _ in parts])
            grid = {"ridge__alpha": ALPHAS}
            search = GridSearchCV(
                make_pipeline(StandardScaler(), Ridge()),
                grid,
                scoring="neg_mean_squared_error",
                cv=LeaveOneGroupOut(),
            )
            model = search.fit(x, np.vstack(factors), groups=groups)
            for name in set(rows) - set(pair):
                truth = expression[rows[name]][:, genes[variable]]
                for shift in shifts:
                    predicted = model.predict(features(name, shift, standardise)) @ directions
                    pcc = stp.metrics.pcc(truth, predicted[:, variable]).mean()
                    yield {"method": variant, "shift": shift, "section": name, "pcc": float(pcc)}
