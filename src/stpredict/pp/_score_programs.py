"""Scores of gene programmes, as targets of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._provenance import record, recorded_steps
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import NormalizeStep, RankStep, SelectGenesStep, SmoothStep
from stpredict.pp._expression._programs import read_gmt, score_sets

if TYPE_CHECKING:
    from spatialdata import SpatialData

#: Records of the genes and layers of a table, which a table of programmes does not have.
_OF_GENES = {step.name for step in (NormalizeStep, RankStep, SelectGenesStep, SmoothStep)}


@checked
def score_programs(
    sdata: SpatialData,
    gene_sets: str | Path,
    *,
    layer: str | None = "log1p",
    seed: int = 0,
    table_name: str = "table",
    key_added: str = "programs",
    copy: bool = False,
) -> SpatialData | None:
    r"""Score sets of genes in every spot, as a table whose columns are targets like genes.

    The score of :func:`scanpy.tl.score_genes` is the mean of the set minus the mean of random genes
    of similar expression, which are drawn from all sections of ``sdata``. Functions with
    ``table_name="programs"`` and ``layer=None`` then fit and evaluate programmes instead of genes;
    embeddings and the graph are copied, so make them first.

    Parameters
    ----------
    sdata
        Sections with a table.
    gene_sets
        Path of a GMT file: a line per set with its name, a description and its genes, separated by
        tabs.
    layer
        Layer to score; None for ``X``.
    seed
        Random seed of the genes that are compared with.
    table_name, key_added, copy
        Names of the table and of the new table, and whether to change and return a copy.

    Returns
    -------
    SpatialData | None
        Writes ``tables[key_added]``, which annotates the same shapes and has the same ``obs``,
        ``obsm`` and ``obsp``: ``X`` (n_obs, n_programs) float32, ``var["n_genes"]``, the number of
        genes of the set that were scored, and ``var["selected"]``, True for all.

    Raises
    ------
    FileNotFoundError, KeyError
        If there is no such file or layer.
    ValueError
        If the file is no text, has no sets, a line without genes or a set twice; if the table has
        no gene of a set, or no other genes to compare with; if values are NaN, or ``key_added`` is
        invalid or the name of another element or of your own table.

    References
    ----------
    Satija et al., Spatial reconstruction of single-cell gene expression data, Nature Biotechnology
    2015.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gmt = Path(folder) / "sets.gmt"
    ...     _ = gmt.write_text("TUMOUR\tplanted\tmorphology_001\tmorphology_002")
    ...     stp.pp.score_programs(sdata, gmt)
    >>> sdata["programs"].var["n_genes"].to_dict()
    {'TUMOUR': 2}
    """
    _validate.seed(seed)
    sets = read_gmt(Path(gene_sets))
    spots = open_table(sdata, table_name, copy=copy)
    check_new_table(spots.sdata, key_added)
    values = spots.layer(layer)
    _validate.finite(values, what="X" if layer is None else f"layers[{layer!r}]")
    genes = {name: _present(name, names, spots.table.var_names) for name, names in sets.items()}
    table = spots.table
    scores = score_sets(values, table.var_names, genes, seed=seed)
    n_genes = [len(names) for names in genes.values()]
    var = pd.DataFrame({"n_genes": n_genes, _keys.SELECTED: True}, index=pd.Index(list(genes)))
    programs = AnnData(scores, obs=table.obs.copy(), var=var)
    for kind in ("obsm", "obsp"):
        getattr(programs, kind).update({k: v.copy() for k, v in getattr(table, kind).items()})
    steps = {name: step for name, step in recorded_steps(table).items() if name not in _OF_GENES}
    programs.uns[_keys.UNS] = steps
    record(programs, "score_programs", layer=layer, seed=seed)
    spots.add_table(key_added, programs)
    n_absent = sum(len(names) for names in sets.values()) - sum(n_genes)
    info(f"score_programs: {len(genes)} programmes of {sum(n_genes)} genes; {n_absent} are absent")
    return spots.sdata if copy else None


def _present(name: str, genes: list[str], available: pd.Index) -> list[str]:
    """Genes of a set that the table has, at least one."""
    present = [gene for gene in genes if gene in available]
    if not present:
        reason = _validate.why_absent(genes, available)
        raise ValueError(
            f"gene_sets: the table has none of the {len(genes)} genes of {name!r}{reason}"
        )
    return present
