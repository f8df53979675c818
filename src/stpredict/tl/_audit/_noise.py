"""Noise that measured expression must have: how far other genes and neighbours predict a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

#: Parts of the genes and of the spots, each of which is predicted from the others.
_GENE_PARTS, _SPOT_PARTS = 4, 2
#: Most components of the other genes, and of the genes and the spots the share that they may be.
_N_COMPONENTS, _MOST_OF_GENES, _MOST_OF_SPOTS = 50, 4, 3
_RIDGE = 1e-2
N_NEIGHBORS = 6
#: Standard errors below the Poisson variance at which a gene varies too little.
_FEW = 3.0
#: Counts per spot below which a gene says little about its noise.
_LEAST_MEAN = 0.2


def nearest(positions: FloatArray) -> NDArray[np.intp]:
    """Indices of the nearest spots, (n, k), without the spot itself."""
    k = min(N_NEIGHBORS, len(positions) - 1)
    return np.asarray(cKDTree(positions).query(positions, k=k + 1)[1])[:, 1:]


def unpredicted(values: FloatArray, around: FloatArray, nuisance: FloatArray) -> FloatArray:
    """Variance of each gene that its surroundings and the other genes do not predict, (n_genes,).

    `values` are (n, n_genes), `around` the means of the neighbours, and `nuisance` (n,) what
    normalisation may have removed or not, such as the log of the library. Values are predicted from
    principal components of other genes, in spots that took no part in the fit. The result is
    relative to the variance without the nuisance.
    """
    values, around = (_scaled(_without(part, values, nuisance)) for part in (values, around))
    n, n_genes = values.shape
    random = np.random.default_rng(0)
    part = random.permutation(n_genes) % _GENE_PARTS
    fold = random.permutation(n) % _SPOT_PARTS
    n_components = min(_N_COMPONENTS, n_genes // _MOST_OF_GENES, n // _MOST_OF_SPOTS)
    rest = np.ones(n_genes)
    for number in range(_GENE_PARTS):
        scores, sizes, _ = np.linalg.svd(values[:, part != number], full_matrices=False)
        components = scores[:, :n_components] * sizes[:n_components]
        components *= np.sqrt(n) / max(sizes[0], 1e-12)
        shared = np.column_stack([components, np.ones(n)])
        of_part = part == number
        predicted = np.empty((n, int(of_part.sum())))
        for left_out in (fold == i for i in range(_SPOT_PARTS)):
            fitted = (each[~left_out] for each in (shared, around[:, of_part], values[:, of_part]))
            weights, slope = _ridge(*fitted)
            predicted[left_out] = shared[left_out] @ weights + slope * around[left_out][:, of_part]
        rest[of_part] = np.mean((values[:, of_part] - predicted) ** 2, axis=0)
    return rest


def _ridge(
    shared: FloatArray, own: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weights of inputs that all genes share, (n_shared, n_genes), and of each gene's own."""
    n_shared, n_genes = shared.shape[1], own.shape[1]
    gram = np.empty((n_genes, n_shared + 1, n_shared + 1))
    gram[:, :-1, :-1] = shared.T @ shared
    gram[:, -1, :-1] = gram[:, :-1, -1] = own.T @ shared
    gram[:, -1, -1] = (own**2).sum(axis=0)
    gram += _RIDGE * np.eye(n_shared + 1)
    products = np.column_stack([values.T @ shared, (own * values).sum(axis=0)])
    weights = np.linalg.solve(gram, products[..., None])[..., 0]
    return weights[:, :-1].T, weights[:, -1]


def noise_kept(
    values: FloatArray,
    counts: FloatArray,
    library: FloatArray,
    neighbors: NDArray[np.intp],
) -> float:
    """Unpredicted variance of a layer relative to that of the log counts of the same spots."""
    nuisance = np.log(library)
    reference = np.log1p(counts / library[:, None] * np.median(library))
    rest = [
        unpredicted(part, part[neighbors].mean(axis=1), nuisance).clip(max=1)
        for part in (values, reference)
    ]
    # genes that are constant in the layer, such as those that have no rank
    varying = values.std(axis=0) > 0
    return float(rest[0][varying].sum() / rest[1][varying].sum()) if varying.any() else np.nan


def sub_poisson_share(counts: FloatArray, neighbors: NDArray[np.intp]) -> float:
    """Share of genes with less unpredicted variance than Poisson counts, of 0.1 % by chance.

    Counts of a spot are independent of those of all others and of other genes given what they are
    expected to be, so that their errors have at least the variance of a Poisson variable.
    """
    mean = counts.mean(axis=0)
    genes = np.flatnonzero(mean >= _LEAST_MEAN)
    if not len(genes):
        return np.nan
    part = counts[:, genes]
    rest = unpredicted(part, part[neighbors].mean(axis=1), np.zeros(len(part)))
    relative = rest * part.var(axis=0) / mean[genes]
    # of the variance of a Poisson sample
    error = np.sqrt((2 + 1 / mean[genes]) / len(part))
    return float(np.mean(relative < 1 - _FEW * error))


def _without(part: FloatArray, values: FloatArray, nuisance: FloatArray) -> FloatArray:
    """Residuals of a regression on the nuisance and on the mean over genes."""
    inputs = np.column_stack([np.ones(len(part)), nuisance, values.mean(axis=1)])
    return np.asarray(part - inputs @ np.linalg.lstsq(inputs, part, rcond=None)[0])


def _scaled(values: FloatArray) -> FloatArray:
    deviation = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
