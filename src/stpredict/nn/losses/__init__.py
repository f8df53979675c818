"""Losses by name.

``loss(predicted, target)`` takes ``(n, g)`` tensors. ``loss(predicted, target, log_library)`` also
takes ``(n,)`` logarithms of library sizes, which only the likelihoods of counts use. All return a
scalar in float32 (float64 for doubles), also under autocast, with a finite gradient for constant
targets and for batches of one.

=====================  ==========================================================  =============
name                   averaged quantity                                           constant gene
=====================  ==========================================================  =============
``mse``                squared error, over spots and genes                         as any other
``l1``                 absolute error, over spots and genes                        as any other
``huber``              error²/2 up to ``delta``, linear beyond                     as any other
``bce``                -log p of high or low, for ``targets="high"``; over both     as any other
``cosine``             1 - cosine of a gene over a section's spots; over genes     1 where zero
``pearson``            1 - correlation of a gene over a section's spots; over      1
                       genes
``pearson_spot``       1 - correlation of a spot over its genes; over spots        1 (a spot)
``poisson``            -log p(count), log-rate + log library size; over both       as any other
``negative_binomial``  the same, with a learnt dispersion per gene                 as any other
``mse_pearson``        weighted sum of the two, as are ``mse_cosine``,             as the parts
                       ``l1_cosine`` and ``huber_cosine``
``pairwise_hinge``     hinge of a spot's pairs of targets; over pairs, then spots  0 (a spot)
``pairwise_logistic``  the same with RankNet's logistic cost                       0 (a spot)
``pairwise_spots``     logistic cost of a gene's pairs of spots within a section,  0
                       weighted by measured differences; over pairs, then genes;
                       also as ``mse_pairwise_spots``
``hybrid_rank``        (1 - w) mse + w rank loss, with a schedule for w            as the parts
=====================  ==========================================================  =============

A single spot of a section costs 1 with ``pearson``, 0 or 2 with ``cosine``, 0 with
``pairwise_spots``, all without gradient. These three compare the spots of a section in the batch,
so their mean over batches is not the loss of all spots, unlike that of the other losses, which are
means over spots. Their batches consist of runs of spots of one section.

Published code that computes something else under the same name:

=================  ===============  ===============================================================
published          in               computes
=================  ===============  ===============================================================
``mse_pearson``    DeepSpot, spots  cosine + 0.2 mse; ``make("mse_cosine", mse_weight=0.2)``
``mse_pearson``    DeepSpot, cells  mse + 0.1 cosine; ``make("mse_cosine", cosine_weight=0.1)``
``pearson``        DeepSpot, spots  correlation over the genes of a spot, here ``pearson_spot``
``poisson``        DeepSpot         a rate of exp(exp(output)), no library size, on any targets
pairwise hinge     HEVisum          a tie costs the margin; here ties are not pairs
pairwise logistic  HEVisum          a tie is ordered as the columns; here ties are not pairs
log schedule       HEVisum          log2(1 + epoch) / log2(1 + epochs); here log2(1 + progress)
hybrid loss        HEVisum          validation with the weight of the epoch; here the final weight
=================  ===============  ===============================================================

References
----------
DeepSpot: Nonchev et al., medRxiv 2025, doi:10.1101/2025.02.09.25321567,
https://github.com/ratschlab/DeepSpot. HEVisum: https://github.com/Dewey-Wang/HEVisum, EL Hackathon
2025.
"""

from stpredict.nn.losses._base import Loss
from stpredict.nn.losses._counts import NegativeBinomial, Poisson, check_counts
from stpredict.nn.losses._errors import BCE, L1, MSE, Cosine, Huber, Pearson, PearsonSpot
from stpredict.nn.losses._pairs import (
    HuberCosine,
    L1Cosine,
    MSECosine,
    MSEPairwiseSpots,
    MSEPearson,
)
from stpredict.nn.losses._rank import HybridRank, PairwiseHinge, PairwiseLogistic, PairwiseSpots
from stpredict.nn.losses._registry import LOSSES, make

__all__ = [
    "BCE",
    "L1",
    "LOSSES",
    "MSE",
    "Cosine",
    "Huber",
    "HuberCosine",
    "HybridRank",
    "L1Cosine",
    "Loss",
    "MSECosine",
    "MSEPairwiseSpots",
    "MSEPearson",
    "NegativeBinomial",
    "PairwiseHinge",
    "PairwiseLogistic",
    "PairwiseSpots",
    "Pearson",
    "PearsonSpot",
    "Poisson",
    "check_counts",
    "make",
]
