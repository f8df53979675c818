"""Gene expression that depends on morphology, and counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from stpredict.datasets._phantom_parts._donors import DONOR_GENES, DONOR_SHARE
from stpredict.datasets._phantom_parts._spots import MORPHOLOGY

FloatArray = NDArray[np.float64]

PLANTED = ("morphology", "neighborhood", "null")
DONOR = "donor"  # a fourth kind, only where patients differ

_EFFECT = 0.8  # standard deviation of a gene's log expectation
# Of each `MORPHOLOGY` in the weights; size counts less, because it is averaged over few nuclei.
_IMPORTANCE = np.array([1.0, 0.6, 1.0])
_DISPERSION = 0.05  # negative binomial: variance = mean + dispersion * mean²
_LIBRARY_SD = 0.25  # standard deviation of the log of a spot's total
AMBIENT = 0.03  # total of a spot off the tissue, relative to one on it


@dataclass(frozen=True)
class GeneProgram:
    """What each gene depends on; the same for all sections."""

    genes: list[str]
    planted: NDArray[np.str_]  # (n_genes,): one of `PLANTED`, or `DONOR`
    weights: FloatArray  # (n_genes, 3): log expectation per unit of each `MORPHOLOGY`
    share: FloatArray  # (n_genes,): mean share of a spot's counts; sums to 1

    def columns(self) -> pd.DataFrame:
        """Columns of the table's ``var``."""
        kinds = (*PLANTED, DONOR) if DONOR in self.planted else PLANTED
        columns = {"planted": pd.Categorical(self.planted, kinds), "share": self.share}
        weights = {f"weight_{n}": w for n, w in zip(MORPHOLOGY, self.weights.T, strict=True)}
        return pd.DataFrame({**columns, **weights}, index=self.genes)


def gene_program(rng: Generator, n_genes: dict[str, int]) -> GeneProgram:
    """Draw weights and mean expression for ``n_genes`` of each kind of `PLANTED`."""
    planted = np.repeat(list(n_genes), list(n_genes.values()))
    weights = rng.normal(0, 1, (len(planted), len(MORPHOLOGY)))
    weights *= _IMPORTANCE
    weights *= _EFFECT / np.linalg.norm(weights, axis=1, keepdims=True)
    weights[planted == "null"] = 0.0
    share = np.exp(rng.normal(0, 0.5, len(planted)))
    genes = [f"{kind}_{i:03d}" for kind, n in n_genes.items() for i in range(1, n + 1)]
    return GeneProgram(genes, planted, weights, share / share.sum())


def with_donor_genes(program: GeneProgram) -> GeneProgram:
    """The same program, and genes that differ between patients only."""
    n = len(DONOR_GENES)
    return GeneProgram(
        [*program.genes, *DONOR_GENES],
        np.append(program.planted, np.repeat(DONOR, n)),
        np.vstack([program.weights, np.zeros((n, len(MORPHOLOGY)))]),
        np.append((1 - DONOR_SHARE) * program.share, np.full(n, DONOR_SHARE / n)),
    )


def expected_shares(
    rng: Generator,
    program: GeneProgram,
    sources: dict[str, FloatArray],  # (n, 3) by kind of gene, what the log expectation depends on
    effects: FloatArray | None = None,  # (n_genes,) log fold change of the patient
) -> FloatArray:
    """Share of each gene in each spot's RNA, ``(n, n_genes)``, rows sum to 1."""
    log = rng.normal(0, _EFFECT, (len(sources["morphology"]), len(program.genes)))
    shares = np.empty_like(log)
    for kind in (*PLANTED, DONOR):
        genes = program.planted == kind
        if kind in sources:  # null genes vary as much as the others, but at random
            log[:, genes] = sources[kind] @ program.weights[genes].T
        if effects is not None:
            log[:, genes] += effects[genes]
        raw = program.share[genes] * np.exp(log[:, genes])
        # each kind has the same share of every spot: normalisation leaks nothing between kinds
        part = program.share[genes].sum()
        shares[:, genes] = raw * (part / raw.sum(axis=1, keepdims=True)) if genes.any() else raw
    return shares


def sample_counts(rng: Generator, shares: FloatArray, depth: float) -> NDArray[np.int64]:
    """Negative-binomial counts around ``shares``, with a random total per spot."""
    n = len(shares)
    total = depth * np.exp(rng.normal(-(_LIBRARY_SD**2) / 2, _LIBRARY_SD, n))
    # a Poisson variable with a gamma-distributed rate is negative binomial
    rate = shares * total[:, None] * rng.gamma(1 / _DISPERSION, _DISPERSION, shares.shape)
    return rng.poisson(rate)
