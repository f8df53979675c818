"""Gene programmes: sets of genes from a GMT file, and their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Genes of each set, by name."""
    if not path.is_file():
        raise FileNotFoundError(f"gene_sets= is not a file: {path}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"gene_sets: {path.name} is no text: give a GMT file") from error
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split("\t"))
        genes = list(dict.fromkeys(filter(None, rest[1:])))  # the first is the description
        if not name or not genes:
            raise ValueError(
                f"line {number} of {path.name} has no genes: a line of a GMT file is a name, a "
                "description and genes, separated by tabs"
            )
        if name in sets:
            raise ValueError(f"gene_sets: {path.name} has the set {name!r} twice: rename one")
        sets[name] = genes
    if not sets:
        raise ValueError(f"gene_sets: {path.name} has no sets: give a GMT file")
    return sets


def score_sets(
    values: Any, genes: Iterable[str], sets: Mapping[str, Sequence[str]], *, seed: int
) -> NDArray[np.float32]:
    """Score of each set in each row, (n_obs, n_sets), from values (n_obs, n_genes)."""
    import scanpy as sc

    table = AnnData(values, var=pd.DataFrame(index=pd.Index(genes)))
    # scanpy needs a few genes in each bin of expression
    n_bins = min(25, max(2, 1 + table.n_vars // 5))
    scores = np.empty((table.n_obs, len(sets)), dtype=np.float32)
    state = np.random.get_state()  # noqa: NPY002 scanpy seeds the global generator
    try:
        for column, (name, members) in enumerate(sets.items()):
            options = {"n_bins": n_bins, "random_state": seed, "use_raw": False}
            try:
                sc.tl.score_genes(table, list(members), ctrl_as_ref=False, **options)
            except RuntimeError as error:
                raise ValueError(
                    f"gene_sets: the table has no genes outside {name!r} whose expression is "
                    "similar: score a table with more genes"
                ) from error
            scores[:, column] = table.obs["score"]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return scores


def set_weights(
    values: NDArray[np.floating],
    genes: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Weights (n_genes, n_sets) with which genes enter the scores of `score_sets`.

    With them, other values of the same genes are scored with the same genes for comparison.
    """
    # a score is a weighted sum of genes: its values in rows of single genes are the weights; these
    # rows add the same to the mean of every gene, by which genes for comparison are drawn
    rows = sp.vstack([sp.csr_matrix(values), sp.eye(len(genes))], format="csr")
    return score_sets(rows, genes, sets, seed=seed)[len(values) :].astype(np.float64)
