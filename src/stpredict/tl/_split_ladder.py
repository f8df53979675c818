"""Score a method under splits from the leakiest to the strictest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict import _runtime, _validate, metrics, results
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.tl._crossval._fold_data import check_repeatable
from stpredict.tl._crossval._jobs import run_folds
from stpredict.tl._crossval._outcome import Outcome
from stpredict.tl._crossval._rungs import splits_of
from stpredict.tl._crossval._store import Store
from stpredict.tl._fitting._bases import check_functions
from stpredict.tl._fitting._docs import shared
from stpredict.tl._fitting._split import block_labels, group_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.tl._crossval._folds import Folds

#: Name of the method in the folds.
_METHOD = "method"


@checked
@shared()
def split_ladder(
    sdata: SpatialData,
    method: Callable[[SpatialData], Model],
    *,
    n_folds: int = 5,
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
) -> results.SplitLadder:
    """Score one method under several splits, to measure what each leak is worth.

    The rungs are random spots, blocks of tissue with a buffer (see
    :func:`stpredict.tl.cross_validate`), sections, and patients. Each shares less between training
    and test than the one before: neighbouring spots, then the section, then the patient. The
    difference between two rungs is the price of a leak. Only a rung that shares nothing estimates
    the score on another patient's section; all others are marked LEAKY, and rungs that the data do
    not allow are reported with the reason.

    All rungs are scored in the same way, on the same spots and genes: PCC per gene within each
    block of each section. Scores of whole sections, as in `cross_validate`, are higher.

    Parameters
    ----------
    sdata
        Sections with everything that the method reads.
    method
        Function that takes sections and returns a fitted model.
    n_folds
        Number of folds of each rung and of blocks of each section; fewer folds where there are
        fewer sections or patients.
    seed
        Random seed of the split of spots.
    {device}
    {table_name}

    Returns
    -------
    SplitLadder
        Scores of each rung and differences between rungs. ``sdata`` is not changed.

    Raises
    ------
    TypeError
        If ``method`` is no function.
    ValueError
        If an option is out of range, some rows have no patient, there are too few spots, only one
        rung is possible, the method failed, or no gene was predicted in all rungs.

    Notes
    -----
    Genes, scaling and all other fitted preprocessing are refitted in each fold. Rungs would differ
    in the number of training spots, because the buffer takes many, and with it in more than their
    leaks. Blocks of fewer sections are therefore left out at a time, in more folds; what remains of
    the difference is reported (``n_training``), and is largest for a single section, where the
    price of neighbouring spots is an upper bound. A spot of the random split reads the images of
    all its neighbours, as is usual, and one of a block those in the buffer, unless their tiles
    overlap tiles of training spots. Random spots of a block are predicted by models of several
    folds, which biases their correlation downwards, and their training neighbourhoods lack the
    spots left out: for few spots, their price can be slightly negative. Sections of one patient
    that are neighbours in the tissue make leaving out a section as leaky as leaving out a block.

    Examples
    --------
    {prepared}
    >>> ladder = stp.tl.split_ladder(sdata, stp.tl.fit_ridge, n_folds=3)
    >>> [rung.name for rung in ladder.rungs]
    ['random_spots', 'blocks', 'patients']
    >>> ladder.impossible["sections"]
    'every patient has a single section'
    """
    check_functions({_METHOD: method}, what="method")
    _validate.whole_number("n_folds", n_folds, at_least=2)
    _validate.seed(seed)
    _runtime.resolve_device(device)  # raises if there is no such device
    spots = open_table(sdata, table_name)
    blocks = block_labels(spots, n_folds)
    _check_blocks(spots, blocks)
    splits, impossible = splits_of(spots, n_folds=n_folds, seed=seed)
    if len(splits) < 2:
        raise ValueError(f"no other split than random spots is possible: {impossible}")
    for folds, _ in splits.values():
        check_repeatable(spots, folds)
    columns, rungs = {}, []
    for name, (folds, common) in splits.items():
        info(f"split_ladder: {name}")
        columns[name] = _scores(spots, folds, blocks, method, device=device)
        n_training = float(np.mean([len(fold.training) for fold in folds]))
        rungs.append(results.Rung(name, common, len(folds), n_training))
    table = pd.DataFrame(columns).dropna()
    if table.empty:
        raise ValueError("no gene was predicted in every rung: select more genes")
    protocol = _protocol(spots, table, n_folds)
    ladder = results.SplitLadder(table, tuple(rungs), impossible, protocol)
    info(repr(ladder))
    return ladder


def _check_blocks(spots: SpotTable, blocks: NDArray[np.str_]) -> None:
    sizes = pd.Series(blocks).groupby([spots.section_of_row, blocks]).size()
    if sizes.min() < 2:
        section = sizes.idxmin()[0]
        raise ValueError(f"section {section!r} has blocks of a single spot: use a smaller n_folds=")


def _scores(
    spots: SpotTable,
    folds: Folds,
    blocks: NDArray[np.str_],
    method: Callable[[SpatialData], Model],
    *,
    device: str,
) -> pd.Series:
    """PCC of each gene in each block of each section, from predictions out of fold."""
    store = Store(None, spots, folds, device=device)
    outcomes = run_folds(spots, {_METHOD: method}, folds, store, device=device)
    shape = spots.table.shape
    measured, predicted = np.full((2, *shape), np.nan, dtype=np.float32)
    for fold in folds:
        outcome = outcomes[fold.name, _METHOD]
        if not isinstance(outcome, Outcome):
            raise ValueError(f"the method failed without {fold.name}:\n{outcome.traceback}")
        inside = np.ix_(fold.rows, spots.table.var_names.get_indexer(outcome.genes))
        measured[inside], predicted[inside] = outcome.measured, outcome.predicted
    groups = _groups(spots, blocks)
    parts = []
    for section, rows in spots.section_rows.items():
        for block in np.unique(blocks[rows]):
            inside = rows[blocks[rows] == block]
            genes = np.flatnonzero(~np.isnan(predicted[inside]).any(axis=0))
            pcc = metrics.pcc(measured[np.ix_(inside, genes)], predicted[np.ix_(inside, genes)])
            index = pd.MultiIndex.from_product(
                [[groups[inside[0]]], [section], [block], spots.table.var_names[genes]],
                names=["group", "section", "block", "gene"],
            )
            parts.append(pd.Series(pcc, index=index))
    return pd.concat(parts)


def _groups(spots: SpotTable, blocks: NDArray[np.str_]) -> NDArray[np.str_]:
    """What the bootstrap draws: patients, else sections, else blocks of the only section."""
    if len(spots.section_names) == 1:
        return blocks
    return group_labels(spots, None)[0]


def _protocol(spots: SpotTable, table: pd.DataFrame, n_blocks: int) -> str:
    n_genes = table.index.get_level_values("gene").nunique()
    n_sections = len(spots.section_names)
    return (
        f"One method under {table.shape[1]} splits of {spots.table.n_obs} spots of {n_sections} "
        f"{'section' if n_sections == 1 else 'sections'}. Pearson correlation per gene within each "
        f"of {n_blocks} blocks of a section, mean over blocks and {n_genes} genes, then over "
        "sections; constant genes count as 0."
    )
