"""Noise ceiling: the largest correlation that counting noise allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stpredict import _validate
from stpredict._arguments import checked
from stpredict.metrics._blocks import SPOTS, blocks, check_values
from stpredict.metrics._per_gene import pcc

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stpredict.metrics._blocks import Values


#: The mean over so many splits has 3 % of the error of one; more only take time.
_MOST_SPLITS = 1000


@dataclass(frozen=True, eq=False)
class NoiseCeiling:
    """Noise ceiling of every gene, as returned by `noise_ceiling`; (n_genes,) float64 each.

    Attributes
    ----------
    pcc
        Upper bound for the PCC of any model: ``sqrt(reliability)``, the correlation of the
        noise-free expected values with the measured values.
    reliability
        Share of the measured variance that is signal: the expected correlation with a second
        measurement, ``2 r / (1 + r)`` with r from `split_half`, 0 if r is negative.
    split_half
        Pearson correlation of two halves of the counts, mean over splits.
    """

    pcc: NDArray[np.float64] = field(repr=False)
    reliability: NDArray[np.float64] = field(repr=False)
    split_half: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        shapes = [values.shape for values in (self.pcc, self.reliability, self.split_half)]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise ValueError(f"pcc, reliability and split_half must all be (n_genes,): {shapes}")


@checked
def noise_ceiling(
    counts: Values,
    *,
    genes: ArrayLike | None = None,
    target_sum: float = 1e4,
    n_splits: int = 10,
    seed: int = 0,
) -> NoiseCeiling:
    """Estimate the largest PCC that counting noise allows, per gene, by thinning the counts.

    Every molecule is assigned to one of two halves at random (binomial thinning, p = ½); halves of
    Poisson counts are independent given the expected counts. Each half is normalised like the
    measured layer (counts per `target_sum` of its own library, log1p). The Spearman–Brown formula
    converts the correlation of the halves over spots to that of two full measurements.

    The estimate is too high for low counts, because log1p is not linear: on simulated sections by
    0.03 (mean over genes) at 5,000 counts per spot, by 0.08 at 1,000 and by less than 0.01 at
    30,000. Estimates of single genes vary as correlations over `n_spots` do: report means.

    Parameters
    ----------
    counts
        (n_spots, n_genes) integer counts of one section with *all* genes, because library sizes
        are sums over them: dense, scipy sparse, or dask.
    genes
        Columns to report, as positions or as a mask over all columns. Default: all columns.
    target_sum
        Counts per spot after normalisation, as in `pp.normalize`.
    n_splits
        Number of splits over which the correlation is averaged.
    seed
        Random seed of the splits.

    Returns
    -------
    Arrays in the order of `genes`, all 0 for a gene that is constant in all splits.

    Raises
    ------
    ValueError
        If counts are not whole numbers, there are fewer than two spots, or an option is invalid.
    IndexError
        If `genes` has positions out of range.

    References
    ----------
    Spearman, Correlation calculated from faulty data, and Brown, Some experimental results in the
    correlation of mental abilities, British Journal of Psychology 1910; Neufeld et al., Inference
    after latent variable estimation for single-cell RNA sequencing data, Biostatistics 2024.

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
    _validate.positive("target_sum", target_sum)
    _validate.whole_number("n_splits", n_splits, at_most=_MOST_SPLITS)
    _validate.seed(seed)
    counts = check_values(counts, name="counts")
    places = slice(None) if genes is None else np.asarray(genes)
    if isinstance(places, np.ndarray) and places.dtype.kind not in "biu":
        raise ValueError(f"genes must be positions of columns or a mask, not {places.dtype}")
    columns = np.arange(counts.shape[1])[places]
    molecules = _integer_counts(counts)
    random = np.random.default_rng(seed)
    correlations = np.zeros(len(columns))
    for _ in range(n_splits):
        # only stored entries are thinned: zeros remain zero
        first = random.binomial(molecules.data, 0.5)
        halves = (first, molecules.data - first)
        layers = [_log_normalized(molecules, half, columns, target_sum) for half in halves]
        correlations += pcc(*layers) / n_splits
    # Spearman-Brown; a negative correlation of halves is chance
    reliability = np.clip(2 * correlations / (1 + correlations.clip(min=0)), 0, 1)
    return NoiseCeiling(np.sqrt(reliability), reliability, correlations)


def _integer_counts(counts: Any) -> sp.csr_array:
    """Counts as a CSR matrix of int64."""
    if not sp.issparse(counts):
        # dense rows are converted a block at a time, which bounds the memory
        parts = [sp.csr_array(rows) for _, (rows,) in blocks(SPOTS, counts=counts)]
        counts = sp.vstack(parts, format="csr")
    data = counts.data
    invalid = ~(np.isfinite(data) & (data >= 0)) | (data != np.floor(data))
    if invalid.any():
        raise ValueError(
            f"{np.count_nonzero(invalid)} counts are not whole numbers of at least 0, such as "
            f"{data[invalid][0]:g}: use raw counts, not a normalised layer"
        )
    return sp.csr_array(counts, dtype=np.int64)


def _log_normalized(
    molecules: sp.csr_array, half: NDArray[np.int64], columns: NDArray[np.intp], target_sum: float
) -> sp.csc_array:
    """``log1p`` of counts per `target_sum`; spots without counts are 0."""
    counts = sp.csr_array((half, molecules.indices, molecules.indptr), shape=molecules.shape)
    # the library of the half, as the measured layer uses the library of all molecules
    scale = target_sum / np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    reported = counts[:, columns].astype(np.float64)
    reported.data = np.log1p(reported.data * np.repeat(scale, np.diff(reported.indptr)))
    return reported.tocsc()
