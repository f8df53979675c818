"""Mean expression of the halves of sections without the tissue's composition, and sex."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.utils.extmath import randomized_svd

from stpredict import _keys
from stpredict.targets._counts import TARGET_SUM
from stpredict.targets._matrix import as_matrix, dense
from stpredict.tl._audit._halves import half_of_spots

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

#: HLA genes are the most polymorphic ones; immunoglobulins follow from a donor's clones.
_IMMUNE = re.compile(r"HLA-|IG[HKL][VDJCGAME]|IGH\d|IGLL", re.IGNORECASE)
_XIST = "XIST"
_Y_GENES = ("RPS4Y1", "DDX3Y", "EIF1AY", "KDM5D", "UTY", "USP9Y", "ZFY")
#: Fewest counts of these genes in a section, and share of the rarer kind, to state a sex.
_SEX_COUNTS, _SEX_SHARE = 10, 0.1
#: Most expressed genes that are compared, and number of axes of composition that are removed.
_N_GENES, _N_AXES = 3000, 10
#: Spots per section from which the axes are computed, which bounds the memory.
_AXIS_SPOTS = 300
#: Fewest genes of a set to compare sections by it.
MIN_GENES = 5


def gene_symbols(spots: SpotTable) -> NDArray[np.str_]:
    """Symbols of the genes where ``var`` has them, else their names, (n_vars,)."""
    var = spots.table.var
    column = var[_keys.GENE_SYMBOLS] if _keys.GENE_SYMBOLS in var else var.index.to_series()
    return column.astype(str).str.upper().to_numpy(dtype=str)


def expression_halves(
    spots: SpotTable, random: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Profiles of both halves of each section, (n_sections, 2, n_genes), by set of genes.

    The axes along which spots vary within sections are removed: sections differ along them by the
    share of each tissue. What remains differs by donor, and by how a section was processed.
    """
    counts = as_matrix(spots.counts)
    symbols = gene_symbols(spots)
    immune = np.array([_IMMUNE.match(symbol) is not None for symbol in symbols])
    sexual = np.isin(symbols, [_XIST, *_Y_GENES])
    total = np.asarray(counts.sum(axis=0)).ravel()
    expressed = np.zeros(len(total), dtype=bool)
    expressed[np.argsort(-total, kind="stable")[:_N_GENES]] = True
    columns = np.flatnonzero((expressed | immune) & ~sexual & (total > 0))
    if len(columns) < MIN_GENES:
        raise ValueError(
            f"sections have {len(columns)} genes in common, at least {MIN_GENES} are needed to "
            "compare them"
        )
    library = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    halves, centered = [], []
    for section in spots.sections:
        rows = section.rows[library[section.rows] > 0]
        scale = TARGET_SUM / library[rows, None]
        values = np.log1p(dense(counts[rows][:, columns]) * scale)
        second = half_of_spots(spots.positions_um[rows])
        halves.append([values[~second].mean(axis=0), values[second].mean(axis=0)])
        sample = random.permutation(len(rows))[:_AXIS_SPOTS]
        centered.append((values[sample] - values.mean(axis=0)) / np.sqrt(len(sample)))
    n_axes = min(_N_AXES, len(columns) // 5)
    profiles = np.asarray(halves, dtype=np.float64)
    if n_axes:
        axes = randomized_svd(np.vstack(centered), n_axes, random_state=0)[2]
        profiles -= profiles @ axes.T @ axes
    sets = {"profile": ~immune[columns], "immune": immune[columns]}
    return {name: profiles[..., genes] for name, genes in sets.items() if genes.sum() >= MIN_GENES}


def sex_of_sections(spots: SpotTable) -> pd.Series[str]:
    """``"female"``, ``"male"`` or, where too few counts show it, ``""``, by section."""
    symbols, counts = gene_symbols(spots), as_matrix(spots.counts)
    x_genes, y_genes = symbols == _XIST, np.isin(symbols, _Y_GENES)
    sex = dict.fromkeys(spots.section_names, "")
    if x_genes.any() and y_genes.any():
        for name, rows in spots.section_rows.items():
            x, y = counts[rows][:, x_genes].sum(), counts[rows][:, y_genes].sum()
            if x + y >= _SEX_COUNTS and min(x, y) <= _SEX_SHARE * (x + y):
                sex[name] = "female" if x > y else "male"
    return pd.Series(sex)
