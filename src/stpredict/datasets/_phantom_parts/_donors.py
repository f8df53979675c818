"""Differences in expression between the patients of a phantom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

SEX_GENES = ("XIST", "RPS4Y1", "DDX3Y")
#: Genes that are added where patients differ.
DONOR_GENES = (
    *SEX_GENES,
    *("HLA-A", "HLA-B", "HLA-C", "HLA-DRA", "HLA-DRB1", "HLA-DRB5", "HLA-DQA1", "HLA-DQB1"),
    *("IGHG1", "IGHG3", "IGKC", "IGLC2"),
)
#: Their share of the counts.
DONOR_SHARE = 0.1
# Standard deviation of the log of a gene between patients, for donor genes and for the others; in
# HER2ST, sections of two patients differ about three times as much as two of one, as here.
_DONOR_EFFECT, _EFFECT = 1.0, 0.4
_ABSENT = -6.0  # log expression of a gene of the other sex


def donor_effects(genes: list[str], *, strength: float, seed: int, patient: int) -> FloatArray:
    """Log fold change of each gene in a patient, (n_genes,)."""
    random = np.random.default_rng([seed, patient, len(DONOR_GENES)])
    names = pd.Index(genes)
    effect = np.where(names.isin(DONOR_GENES), _DONOR_EFFECT, _EFFECT)
    effects = strength * effect * random.normal(size=len(genes))
    is_female = patient % 2 == 0  # so that both sexes occur among few patients
    absent = SEX_GENES[1:] if is_female else SEX_GENES[:1]
    effects[names.isin(SEX_GENES)] = 0.0
    effects[names.isin(absent)] = _ABSENT
    return effects
