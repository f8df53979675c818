"""Preservation of gene-gene correlations and of clusters of spots."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.metrics._blocks import SPOTS, as_values, blocks, check_pair, check_values
from stpredict.metrics._per_gene import pcc
from stpredict.metrics._scores import is_constant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.metrics._blocks import Values

#: Principal components used for clustering, the default of scanpy.
_N_COMPONENTS = 50
#: Random initialisations of k-means.
_N_STARTS = 10


@checked
def gene_correlation(measured: Values, predicted: Values) -> float:
    """How well a prediction preserves the correlations between genes.

    Pearson correlation between the upper triangles of the measured and the predicted gene-gene
    correlation matrix over the spots of a section. Noise weakens measured correlations by similar
    factors, which hardly affects the result.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) values each: dense, scipy sparse, or dask. The two (n_genes, n_genes)
        matrices are held in memory, 200 MB each for 5,000 genes.

    Returns
    -------
    A number in [-1, 1]; 0 if all correlations of a side are equal. Those of constant genes are 0.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two spots or three genes, or a value is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> measured = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(metrics.gene_correlation(measured, 3 * measured + 1), 2)
    1.0
    """
    measured, predicted = check_pair(measured, predicted, least_genes=3)
    pairs = np.triu_indices(measured.shape[1], k=1)  # without the diagonal
    sides = {"measured": measured, "predicted": predicted}
    triangles = [_correlations(values, name)[pairs][:, None] for name, values in sides.items()]
    return float(pcc(*triangles)[0])


@dataclass(frozen=True)
class ClusterAgreement:
    """Agreement of two clusterings of the same spots: 1 if they are equal.

    Attributes
    ----------
    ari
        Adjusted Rand index in [-0.5, 1], 0 expected by chance.
    nmi
        Normalised mutual information in [0, 1]. Chance increases with the number of clusters.
    """

    ari: float
    nmi: float  # normalised by the mean of the entropies


@checked
def cluster_agreement(
    measured: Values, predicted: Values, *, n_clusters: int | None = None, seed: int = 0
) -> ClusterAgreement:
    """Compare clusters of spots by predicted values with clusters by measured values.

    Each side is centred, reduced to 50 principal components and clustered by k-means (the best of
    ten initialisations). Labels, such as a pathologist's annotation, can replace measured values.

    Parameters
    ----------
    measured
        (n_spots, n_genes) values, dense, scipy sparse, or dask, or (n_spots,) labels.
    predicted
        (n_spots, n_genes) values.
    n_clusters
        Number of clusters, by default that of distinct labels. Required for measured values.
    seed
        Random seed of k-means.

    Returns
    -------
    ``ari`` in [-0.5, 1] and ``nmi`` in [0, 1]; both are 0 if a side has a single cluster.

    Raises
    ------
    ValueError
        If the shapes differ, a value is NaN, a label is missing, or `n_clusters` is out of range.

    References
    ----------
    Hubert and Arabie, Comparing partitions, 1985; Strehl and Ghosh, Cluster ensembles, JMLR 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> labels = np.repeat(["tumour", "stroma"], 10)
    >>> noise = np.random.default_rng(0).normal(size=(20, 5))
    >>> metrics.cluster_agreement(labels, noise + 9 * (labels == "tumour")[:, None])
    ClusterAgreement(ari=1.0, nmi=1.0)
    """
    _validate.seed(seed)
    measured = as_values(measured)
    if measured.ndim == 1:
        predicted = check_values(predicted, name="predicted")
        labels: NDArray[Any] = _check_labels(measured, predicted.shape[0])
        n_clusters = len(np.unique(labels)) if n_clusters is None else n_clusters
    else:
        measured, predicted = check_pair(measured, predicted)
    n_spots = predicted.shape[0]
    if n_clusters is None or not 2 <= n_clusters <= n_spots:
        raise ValueError(f"n_clusters must be 2 to {n_spots}, the number of spots: {n_clusters}")
    if measured.ndim == 2:
        labels = _clusters(measured, "measured", n_clusters, seed)
    sides = labels, _clusters(predicted, "predicted", n_clusters, seed)
    if any(len(np.unique(side)) == 1 for side in sides):  # scikit-learn gives 1 for two constants
        return ClusterAgreement(0.0, 0.0)
    ari, nmi = adjusted_rand_score(*sides), normalized_mutual_info_score(*sides)
    return ClusterAgreement(float(ari), float(nmi))


def _check_labels(labels: NDArray[Any], n_spots: int) -> NDArray[np.str_]:
    if len(labels) != n_spots:
        raise ValueError(f"measured has {len(labels)} labels, predicted {n_spots} spots")
    # None, and NaN of any type, the only value that differs from itself
    n_missing = sum(label is None or label != label for label in labels.tolist())
    if n_missing:
        raise ValueError(
            f"measured has no label for {n_missing} spots: exclude them from both sides"
        )
    return labels.astype(str)  # scikit-learn refuses labels of mixed types


def _clusters(values: Any, name: str, n_clusters: int, seed: int) -> NDArray[np.int32]:
    mean, scatter, constant = _moments(values, name)
    if constant.all():
        return np.zeros(values.shape[0], dtype=np.int32)
    last = len(mean) - 1
    # PCA by the covariance, which is computed in blocks; eigenvalues ascend
    axes = eigh(scatter, subset_by_index=[max(0, last + 1 - _N_COMPONENTS), last])[1]
    components = np.empty((values.shape[0], axes.shape[1]))
    for spots, (rows,) in blocks(SPOTS, **{name: values}):
        components[spots] = (rows - mean) @ axes
    kmeans = KMeans(n_clusters, n_init=_N_STARTS, random_state=seed)
    with warnings.catch_warnings():  # k-means warns if fewer spots than clusters are distinct
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters: NDArray[np.int32] = kmeans.fit_predict(components)
    return clusters


def _correlations(values: Any, name: str) -> NDArray[np.float64]:
    _, scatter, constant = _moments(values, name)
    scatter[constant] = scatter[:, constant] = 0  # rounding errors of constant genes
    norm = np.sqrt(np.diag(scatter))
    norm[norm == 0] = 1
    scatter /= norm  # in place: the matrix may have gigabytes
    scatter /= norm[:, None]
    return scatter


def _moments(
    values: Any, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Mean of every gene, scatter matrix (n_genes, n_genes), and mask of constant genes."""
    # one pass that merges blocks: Chan et al., Algorithms for computing the sample variance, 1983
    n_genes = values.shape[1]
    mean, scatter = np.zeros(n_genes), np.zeros((n_genes, n_genes))
    extremes = np.array([np.full(n_genes, np.inf), np.full(n_genes, -np.inf)])
    for spots, (rows,) in blocks(SPOTS, **{name: values}):
        extremes[0] = np.minimum(extremes[0], rows.min(axis=0))
        extremes[1] = np.maximum(extremes[1], rows.max(axis=0))
        n_before, n_block = spots.start, spots.stop - spots.start
        deviation = rows.astype(np.float64)
        block_mean = deviation.mean(axis=0)
        deviation -= block_mean
        scatter += deviation.T @ deviation
        # update the mean and scatter of the spots so far by those of the block
        step = block_mean - mean
        scatter += np.outer(step, step * (n_before * n_block / spots.stop))
        mean += step * (n_block / spots.stop)
    return mean, scatter, is_constant(extremes.T)
