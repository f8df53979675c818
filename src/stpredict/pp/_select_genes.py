"""Select the genes to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._provenance import record_step
from stpredict._sdata._slots import check_slot, write_slot
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict._sdata._steps import SelectGenesStep
from stpredict.pp._expression._gene_scores import FLAVORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData


@checked
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

    Select on training sections only: genes selected on test sections make scores too optimistic.

    Parameters
    ----------
    sdata
        Training sections.
    genes, n_top_genes
        Names of genes, or the number of genes to select instead.
    flavor
        Criterion by which ``n_top_genes`` genes are selected.

        - ``"pearson_residuals"``: variance of counts beyond counting noise, in the ``4 *
          n_top_genes`` most expressed genes (:func:`scanpy.experimental.pp.highly_variable_genes`).
        - ``"variance"``: variance of ``layers["log1p"]``, as in most published benchmarks; much of
          it is noise of weakly expressed genes.
        - ``"expression"``: mean counts.
        - ``"hvg"``: normalised dispersion of ``layers["log1p"]``
          (:func:`scanpy.pp.highly_variable_genes`, flavour ``"seurat"``).
        - ``"moran"``: Moran's I of ``layers["log1p"]`` on the graph of
          :func:`stpredict.pp.neighbors` (:func:`squidpy.gr.spatial_autocorr`).

        The last three use the mean of the ranks within each section.
    table_name, key_added, copy
        Name of the table; column of ``var`` to write (models read only the default, and only it
        is recorded as a step); and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``var[key_added]`` (bool) and ``uns["stpredict"]["select_genes"]``.

    Raises
    ------
    KeyError, TypeError
        If a gene, ``layers["log1p"]`` or the graph is missing, or ``genes`` is a single name.
    ValueError
        If neither or both of ``genes`` and ``n_top_genes`` are given, one of them is invalid,
        counts are negative or NaN, or ``key_added`` is invalid or the name of your own column.

    References
    ----------
    Lause et al., Genome Biology 2021 (Pearson residuals). Moran, Biometrika 1950 (Moran's I).

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> int(sdata.tables["table"].var["selected"].sum())
    10
    """
    if (genes is None) == (n_top_genes is None):
        raise ValueError(f"give either genes= or n_top_genes=: {genes=}, {n_top_genes=}")
    if n_top_genes is not None:
        _validate.whole_number("n_top_genes", n_top_genes)
        n_top_genes = int(n_top_genes)  # also from numpy
    names = None if genes is None else _validate.name_list("genes", genes)
    spots = open_table(sdata, table_name, copy=copy)
    check_slot(spots.table, "var", key_added)
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
    selected = np.zeros(table.n_vars, dtype=bool)
    if names is None:
        _validate.one_of("flavor", step.flavor, FLAVORS)
        n_top_genes = step.n_top_genes or 0  # always given for a step with a flavour
        if n_top_genes > table.n_vars:
            raise ValueError(
                f"n_top_genes={n_top_genes} must lie between 1 and {table.n_vars}, the number of "
                "genes"
            )
        selected[FLAVORS[str(step.flavor)](spots, n_top_genes)] = True
    else:
        _validate.present(names, table.var_names)
        selected[table.var_names.isin(names)] = True
    write_slot(table, "var", key_added, selected)
    # there is one record, which describes the genes that models read
    if key_added == _keys.SELECTED:
        record_step(table, step, n_selected=int(selected.sum()), sections=spots.section_names)
