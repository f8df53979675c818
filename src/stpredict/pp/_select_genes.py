"""Select the genes to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from stpredict import _keys, _validate
from stpredict._sdata._provenance import record_step
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import SelectGenesStep
from stpredict.pp._expression._gene_scores import FLAVORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable


def select_genes(
    sdata: SpatialData,
    genes: Sequence[str] | None = None,
    *,
    n_top_genes: int | None = None,
    flavor: Literal[
        "pearson_residuals", "variance", "expression", "hvg", "moran"
    ] = "pearson_residuals",
    table_name: str = "table",
    key_added: str = "selected",
    copy: bool = False,
) -> SpatialData | None:
    """Mark the genes to predict: a given list, or the most informative ones.

    Select on training sections only. Genes that were selected with the test sections included make
    scores too optimistic.

    Parameters
    ----------
    sdata
        Training sections.
    genes
        Names of genes.
    n_top_genes
        Number of genes to select, instead of a list.
    flavor
        Criterion by which ``n_top_genes`` genes are selected, always on the rows of the table.

        - ``"pearson_residuals"``: among the ``4 * n_top_genes`` most expressed genes, by the
          variance of the counts that counting noise does not explain, ranked within each section
          and combined (:func:`scanpy.experimental.pp.highly_variable_genes`). It selects strongly
          expressed genes whose logarithm varies little, such as ERBB2 in HER2-positive tumours.
        - ``"variance"``: by the variance of ``layers["log1p"]`` over all spots, as most published
          benchmarks do; much of it is noise of weakly expressed genes.
        - ``"expression"``: by the mean counts.
        - ``"hvg"``: by the normalised dispersion of ``layers["log1p"]``
          (:func:`scanpy.pp.highly_variable_genes`, flavour ``"seurat"``).
        - ``"moran"``: by Moran's I of ``layers["log1p"]`` on the spatial graph of
          :func:`stpredict.pp.neighbors` (:func:`squidpy.gr.spatial_autocorr`), which prefers genes
          that vary between regions over genes that vary between neighbouring spots.

        The last three rank genes within each section and use the mean rank, so that sections count
        equally and differences between sections do not count.
    table_name
        Name of the table.
    key_added
        Column of ``var`` to write. Models read the default, and only the default is recorded as a
        step that cross-validation repeats.
    copy
        Return a changed copy instead of changing ``sdata``.

    Returns
    -------
    SpatialData | None
        Writes ``var[key_added]`` (bool) of ``tables[table_name]`` and
        ``uns["stpredict"]["select_genes"]``.

    Raises
    ------
    KeyError
        If a gene is not in the table, or ``layers["log1p"]`` or the spatial graph is missing.
    ValueError
        If neither or both of ``genes`` and ``n_top_genes`` are given, ``genes`` is empty or repeats
        a name, ``n_top_genes`` exceeds the number of genes, or counts are negative or NaN.
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
    names = None if genes is None else _validate.name_list("genes", genes)
    spots = open_table(sdata, table_name, copy=copy)
    step = SelectGenesStep(n_top_genes, None if n_top_genes is None else flavor)
    mark_genes(spots, step, names=names, key_added=key_added)
    return spots.sdata if copy else None


def mark_genes(
    spots: SpotTable,
    step: SelectGenesStep,
    *,
    names: Sequence[str] | None = None,
    key_added: str = _keys.SELECTED,
) -> None:
    """Mark named genes, or those that a step selects, in an opened table."""
    table = spots.table
    if names is None:
        selected = np.zeros(table.n_vars, dtype=bool)
        _validate.one_of("flavor", step.flavor, FLAVORS)
        if not isinstance(step.n_top_genes, int) or not 0 < step.n_top_genes <= table.n_vars:
            raise ValueError(
                f"n_top_genes={step.n_top_genes!r} must lie between 1 and {table.n_vars}, the "
                "number of genes"
            )
        selected[FLAVORS[str(step.flavor)](spots, step.n_top_genes)] = True
    else:
        _validate.present(names, table.var_names)
        selected = np.asarray(table.var_names.isin(names))
    table.var[key_added] = selected
    # there is one record, which describes the genes that models read
    if key_added == _keys.SELECTED:
        record_step(table, step, n_selected=int(selected.sum()), sections=spots.section_names)
