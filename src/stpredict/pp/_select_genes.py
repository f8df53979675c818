"""Which genes to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata import _provenance, _sections
from stpredict.pp._expression._gene_scores import FLAVORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def select_genes(
    sdata: SpatialData,
    genes: Sequence[str] | None = None,
    *,
    n_top_genes: int | None = None,
    flavor: Literal[
        "pearson_residuals", "variance", "expression", "hvg", "moran"
    ] = "pearson_residuals",
    copy: bool = False,
) -> SpatialData | None:
    """Mark the genes to predict: a given list, or those that stand out.

    Select on training sections only: genes chosen with the test sections in sight make scores
    look better than they are.

    Parameters
    ----------
    sdata
        Training sections.
    genes
        Names of genes.
    n_top_genes
        Instead of a list: this many genes.
    flavor
        How ``n_top_genes`` genes are chosen, always on the rows of the table.

        - ``"pearson_residuals"``: of the ``4 * n_top_genes`` most expressed genes, by the variance of
          the counts beyond what counting noise explains, ranked within each section, the ranks
          combined (:func:`scanpy.experimental.pp.highly_variable_genes`); it finds strongly
          expressed genes, such as ERBB2 in HER2-positive tumours, whose logarithm varies little.
        - ``"variance"``: by the variance of ``layers["log1p"]`` over all spots, as most published
          benchmarks do; much of it is noise of weakly expressed genes.
        - ``"expression"``: by the mean counts.
        - ``"hvg"``: by the normalised dispersion of ``layers["log1p"]``
          (:func:`scanpy.pp.highly_variable_genes`, flavour ``"seurat"``).
        - ``"moran"``: by Moran's I of ``layers["log1p"]`` on the spatial graph of
          :func:`stpredict.pp.neighbors` (:func:`squidpy.gr.spatial_autocorr`): genes that vary
          from place to place rather than from spot to spot.

        The last three are ranked within each section; the mean of the ranks decides, so that a
        large section counts no more than a small one, and a difference between sections not at all.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``var["selected"]`` (bool) of ``tables["table"]`` and
        ``uns["stpredict"]["select_genes"]``.

    Raises
    ------
    KeyError
        If a gene is not in the table, or ``layers["log1p"]`` or the spatial graph is missing.
    ValueError
        If neither or both of ``genes`` and ``n_top_genes`` are given, ``genes`` is empty or repeats a
        name, ``n_top_genes`` exceeds the genes, or counts are negative or NaN.
    TypeError
        If ``genes`` is a single name.

    References
    ----------
    Lause et al., Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data,
    Genome Biology 2021. Moran, Notes on continuous stochastic phenomena, Biometrika 1950.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> int(sdata.tables["table"].var["selected"].sum())
    10
    """
    if (genes is None) == (n_top_genes is None):
        raise ValueError(
            f"give either genes= or n_top_genes=: genes={genes!r}, n_top_genes={n_top_genes!r}"
        )
    if isinstance(genes, str):
        raise TypeError(f"genes={genes!r} is one name; give a list: [{genes!r}]")
    if genes is not None and len(genes) == 0:
        raise ValueError("genes= is empty")
    sdata = _sections.copy_of(sdata) if copy else sdata
    table = _sections.table_of(sdata)
    if genes is not None:
        _validate.unique_names(list(genes), what="genes")
        _validate.present(list(genes), table.var_names)
        selected = np.asarray(table.var_names.isin(list(genes)))
    else:
        selected = _top(table, n_top_genes, flavor)
    table.var[_keys.SELECTED] = selected
    _provenance.record(
        table,
        "select_genes",
        n_top_genes=n_top_genes,
        flavor=None if genes is not None else flavor,
        n_selected=int(selected.sum()),
        sections=_sections.section_names(table),
    )
    return sdata if copy else None


def _top(table: AnnData, n_top_genes: int | None, flavor: str) -> NDArray[np.bool_]:
    _validate.one_of("flavor", flavor, FLAVORS)
    if not isinstance(n_top_genes, int) or not 0 < n_top_genes <= table.n_vars:
        raise ValueError(
            f"n_top_genes={n_top_genes!r} must lie between 1 and {table.n_vars}, the genes"
        )
    selected = np.zeros(table.n_vars, dtype=bool)
    selected[FLAVORS[flavor](table, n_top_genes)] = True
    return selected
