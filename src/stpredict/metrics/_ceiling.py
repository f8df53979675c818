"""How well any model could do: what the noise of the counts leaves to be predicted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stpredict.metrics._blocks import SPOTS, blocks, check_values
from stpredict.metrics._per_gene import pcc

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stpredict.metrics._blocks import Values


@dataclass(frozen=True, eq=False)
class NoiseCeiling:
    """What the noise of the counts leaves to be predicted, per gene; made by `noise_ceiling`.

    Attributes
    ----------
    pcc
        (n_genes,) float64 in [0, 1]: largest Pearson correlation with the measured values that a
        prediction of the expected values could have, without noise of its own:
        ``sqrt(reliability)``. This is the upper bound to read a PCC by.
    reliability
        (n_genes,) float64 in [0, 1]: correlation that a second measurement of the same spots, as
        deep, would have with the first: ``2 r / (1 + r)`` of the halves' r (Spearman–Brown), 0
        where r is negative. It is the share of the measured variance that is signal.
    split_half
        (n_genes,) float64 in [-1, 1]: Pearson correlation r of the two halves, mean over splits.
    """

    pcc: NDArray[np.float64] = field(repr=False)
    reliability: NDArray[np.float64] = field(repr=False)
    split_half: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        shapes = [np.shape(part) for part in (self.pcc, self.reliability, self.split_half)]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise ValueError(f"pcc, reliability and split_half must all be (n_genes,): {shapes}")


def noise_ceiling(
    counts: Values,
    *,
    genes: ArrayLike | None = None,
    target_sum: float = 1e4,
    n_splits: int = 10,
    seed: int = 0,
) -> NoiseCeiling:
    """Largest correlation that noise lets a model reach, per gene, by thinning the counts.

    Every molecule is given to one of two halves by the toss of a coin (binomial thinning, p = ½):
    of Poisson counts, the halves are independent given the expected counts. Each half is normalised
    as the measured layer is, to counts per `target_sum` of its own library and log1p, and the two
    are correlated over the spots. Spearman and Brown's formula takes the correlation of halves to
    that of two whole measurements, the reliability; its square root is what a prediction without
    noise can reach against one measurement.

    The bound is for a model that predicts expected values exactly. It is an estimate, too high
    where counts are few, because log1p is not linear: on simulated sections by 0.03 (mean over
    genes) at 5,000 counts per spot, by 0.08 at 1,000, by less than 0.01 at 30,000. Of single genes
    it scatters by chance as correlations over `n_spots` do, so read means over genes.

    Parameters
    ----------
    counts
        (n_spots, n_genes) integer counts of one section, of *all* genes, since libraries are summed
        over them: dense, scipy sparse, or dask.
    genes
        Columns to report: positions, or a mask of all columns; by default all.
    target_sum
        Counts per spot after normalisation, as for `pp.normalize`.
    n_splits
        Splits to average the correlation over.
    seed
        Of the splits.

    Returns
    -------
    ``pcc``, the attainable correlation, ``reliability`` and ``split_half``, each (n_genes,) in the
    order of `genes`. All are 0 of a gene that is constant in both halves of all splits.

    Raises
    ------
    ValueError
        If counts are not whole numbers of at least 0, there are fewer than two spots, or options
        are out of range.
    IndexError
        If `genes` names columns that are not there.

    References
    ----------
    Spearman, Correlation calculated from faulty data, British Journal of Psychology 1910; Brown,
    Some experimental results in the correlation of mental abilities, same volume. Thinning:
    Neufeld et al., Inference after latent variable estimation for single-cell RNA sequencing data,
    Biostatistics 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import metrics
    >>> rates = np.random.default_rng(0).gamma(2, 20, size=(500, 3))
    >>> rates[:, 2] = 0.3  # noise only
    >>> counts = np.random.default_rng(1).poisson(rates)
    >>> metrics.noise_ceiling(counts, target_sum=100).pcc.round(1)
    array([1. , 0.9, 0. ])
    """
    if not 0 < target_sum < np.inf:
        raise ValueError(f"target_sum must be above 0 and finite: {target_sum}")
    if n_splits < 1:
        raise ValueError(f"n_splits must be at least 1: {n_splits}")
    counts = check_values(counts)
    columns = _columns(genes, counts.shape[1])
    molecules = _molecules(counts)
    random = np.random.default_rng(seed)
    correlations = np.zeros(len(columns))
    for _ in range(n_splits):
        first = random.binomial(molecules.data, 0.5)
        halves = [
            _log_normalized(molecules, half, columns, target_sum)
            for half in (first, molecules.data - first)
        ]
        correlations += pcc(*halves) / n_splits
    reliability = np.clip(2 * correlations / (1 + correlations.clip(min=0)), 0, 1)
    return NoiseCeiling(np.sqrt(reliability), reliability, correlations)


def _columns(genes: ArrayLike | None, n_genes: int) -> NDArray[np.intp]:
    everything = np.arange(n_genes)
    return everything if genes is None else everything[np.asarray(genes)]


def _molecules(counts: Any) -> sp.csr_array:
    """Counts as a sparse matrix of integers, from whatever holds them."""
    if not sp.issparse(counts):
        counts = sp.vstack(
            [sp.csr_array(piece) for _, (piece,) in blocks(SPOTS, measured=counts)], format="csr"
        )
    data = counts.data
    bad = ~(data >= 0) | (data != np.floor(data))
    if bad.any():
        raise ValueError(
            f"{np.count_nonzero(bad)} counts are not whole numbers of at least 0, such as "
            f"{data[bad][0]:g}: molecules are thinned, so give raw counts, not a normalised layer"
        )
    parts = (data.astype(np.int64), counts.indices, counts.indptr)
    matrix = sp.csr_array if counts.format == "csr" else sp.csc_array
    return matrix(parts, shape=counts.shape).tocsr()


def _log_normalized(
    molecules: sp.csr_array, half: NDArray[np.int64], columns: NDArray[np.intp], target_sum: float
) -> sp.csc_array:
    """``log1p`` of counts per `target_sum`; a spot without counts is 0 everywhere."""
    counts = sp.csr_array((half, molecules.indices, molecules.indptr), shape=molecules.shape)
    library = np.asarray(counts.sum(axis=1)).ravel()
    chosen = counts[:, columns].astype(np.float64)
    scale = target_sum / np.maximum(library, 1)
    chosen.data = np.log1p(chosen.data * np.repeat(scale, np.diff(chosen.indptr)))
    return chosen.tocsc()
