"""Leave groups out in turn, and score methods on them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from stpredict import _runtime, _validate, results
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._slots import check_new_table
from stpredict._sdata._spot_table import open_table
from stpredict.tl._audit._donors import notes_on_donors
from stpredict.tl._audit._layers import check_test_layer
from stpredict.tl._crossval._baselines import ridge_baselines
from stpredict.tl._crossval._fold_data import check_repeatable
from stpredict.tl._crossval._fold_scores import (
    check_sizes,
    cross_validation_protocol,
    score_outcomes,
)
from stpredict.tl._crossval._folds import leave_blocks_out, leave_groups_out
from stpredict.tl._crossval._jobs import run_folds
from stpredict.tl._crossval._outcome import Outcome, check_same_quantile
from stpredict.tl._crossval._store import Store
from stpredict.tl._crossval._table import write_out_of_fold
from stpredict.tl._fitting._bases import check_functions, check_names
from stpredict.tl._fitting._docs import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from spatialdata import SpatialData

    from stpredict.models import Model
    from stpredict.tl._crossval._jobs import Outcomes


@checked
@shared()
def cross_validate(
    sdata: SpatialData,
    methods: Mapping[str, Callable[[SpatialData], Model]],
    *,
    groups: str | None = None,
    n_folds: int | None = None,
    folder: str | Path | None = None,
    keep_models: bool = False,
    allow_leak: bool = False,
    seed: int = 0,
    device: str = "auto",
    table_name: str = "table",
    key_added: str = "out_of_fold",
) -> results.Scores:
    """Score methods on groups that they were not fitted on, with baselines, nulls and a ceiling.

    Every group is left out in turn. All fitted preprocessing is refitted on the other groups:
    steps of `pp` that were run on all sections (selected genes, the reference stain, ranks among
    selected genes, weights of groups), and the methods' scaling, factors, early stopping and alpha.
    To choose hyperparameters inside the folds, pass `tl.fit_tuned` as a method. Folds run in
    parallel on the workers of a `dask.distributed` client, if one is active.

    Tuned ridge regression on each embedding that methods read is the baseline, ``tuned_ridge``.
    References are the mean of the training rows and that of the *measured* neighbours, which no
    model is given. Each method is also scored with its predictions shuffled, and moved by random
    rotations and shifts within the section, where a model of smooth maps scores equally well. The
    noise ceiling is the score that counting noise would leave to a perfect prediction.

    Parameters
    ----------
    sdata
        Sections with everything that the methods read.
    methods
        Functions by name that take sections and return a fitted model, all in the same units.
        Names may contain letters, digits, ``_``, ``.`` and ``-``.
    groups
        Column of ``obs`` whose groups are left out; by default the patient if there are several,
        else the section. ``"blocks"``, also for a single section: one block of every section at a
        time, with a buffer (see Notes).
    n_folds
        Number of folds of about equal size; by default one per group, and 5 for blocks.
    folder
        Folder for finished folds, which several processes may share. A second call with the same
        data (table, shapes, images) and methods runs only what is missing; images are read to
        compare them. A function of your own is recognised by its name, its code, and the numbers,
        names and functions from its surroundings: after another change, use another folder.
    keep_models
        Keep the fitted model of each fold in ``scores.models[method][fold]``, and in ``folder``.
        :func:`stpredict.models.average` makes one model of them.
    allow_leak
        Continue when a patient or section is on both sides of a split, with scores marked LEAKY.
    seed
        Random seed of shuffles, shifts and thinning. Methods have their own seeds.
    {device}
    {table_name}
    key_added
        Name of the table with the out-of-fold predictions.

    Returns
    -------
    Scores
        Tidy scores, protocol and failures. Writes ``tables[key_added]``, which annotates the same
        shapes, with all genes predicted in any fold: ``X`` (n_obs, n_genes) float32, the measured
        values in the units of the models; ``layers[<method>]`` and ``layers["tuned_ridge"]``,
        out-of-fold predictions. All are NaN for genes not selected in that fold, and a method's
        where it failed. ``obs["fold"]`` and ``obs["group"]``; ``var["n_folds"]``, in how many folds
        a gene was predicted.

    Raises
    ------
    KeyError
        If ``groups`` is no column.
    TypeError
        If a method is no function.
    ValueError
        If there is a single group, rows have no group, a patient or section is on both sides of a
        split, blocks leave too few training spots, units differ, an option is out of range,
        ``key_added`` is the name of another element, or every method failed. Other errors are kept
        in ``failures``.
    FileExistsError
        If ``folder`` holds something else.

    Notes
    -----
    Blocks are strips of equal numbers of spots across the longer side of each section; the folds
    leave out the first strip of every section, the second, and so on. Spots that are nearer than
    2.5 spot pitches to the block, in x and in y, are neither in training nor in test. The buffer is
    at least as wide as the largest embedded tile, so that no pixel is in tiles of both. The
    neighbourhood graphs of training and test link no spot of the other part. Scores are computed
    within each block and averaged: models of different folds have different means, and correlations
    of their pooled predictions are biased (Parker et al. 2007; Forman and Scholz 2010). A block
    varies less than a section, so that scores of blocks and of sections are not comparable; to
    compare splits, use :func:`stpredict.tl.split_ladder`. With several sections, scores of blocks
    are marked LEAKY, because other parts of the same section are in training.

    References
    ----------
    Roberts et al., Cross-validation strategies for data with temporal, spatial, hierarchical, or
    phylogenetic structure, Ecography 2017 (blocks). Parker, Günter and Bedo, Stratification bias in
    low signal microarray studies, BMC Bioinformatics 2007; Forman and Scholz, Apples-to-apples in
    cross-validation studies, SIGKDD Explorations 2010 (scores by fold). Neufeld et al., Inference
    after latent variable estimation for single-cell RNA sequencing data, Biostatistics 2024
    (thinning).

    Examples
    --------
    {prepared}
    >>> scores = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> summary = scores.summary()
    >>> bool(summary.loc["ridge", "pcc"] > summary.loc["ridge", "pcc_spatial_null"] + 0.1)
    True
    """
    check_functions(methods, what="methods")
    if not methods:
        raise ValueError("methods= is empty: give functions by name, {'ridge': stp.tl.fit_ridge}")
    check_names(methods, what="methods", reserved=(*results.REFERENCES, results.TUNED_RIDGE))
    _validate.seed(seed)
    _runtime.resolve_device(device)  # raises if there is no such device
    spots = open_table(sdata, table_name)
    check_new_table(sdata, key_added)
    notes: tuple[str, ...] = ()
    if groups == results.BLOCKS:
        # asked for by name, and marked where there are other sections
        folds, groups = leave_blocks_out(spots, n_folds), None
    else:
        folds = leave_groups_out(
            spots,
            groups,
            purpose="cross-validation",
            n_folds=n_folds,
            remedy=f", or groups={results.BLOCKS!r} for blocks of tissue",
        )
        if not allow_leak:
            remedy = "; allow_leak=True continues and marks the scores LEAKY"
            folds.refuse_leaks(groups, remedy=remedy)
        notes = notes_on_donors(spots, groups, seed=seed)
    # everything that can be refused is refused before anything slow
    check_repeatable(spots, folds)
    check_sizes(spots, folds)

    store = Store(folder, spots, folds, device=device)
    run = functools.partial(
        run_folds, spots, folds=folds, store=store, device=device, keep_models=keep_models
    )
    outcomes = run(methods)
    # the baseline reads the embeddings and genes that the methods read
    baselines = ridge_baselines(spots, list(_finished(outcomes).values()), groups=groups)
    outcomes |= run(baselines, description="baselines")

    finished = _finished(outcomes)
    failures = tuple(one for one in outcomes.values() if isinstance(one, results.Failure))
    layer = next(iter(finished.values())).layer or None
    notes += check_test_layer(spots, layer, allow_smoothed=True)
    protocol = cross_validation_protocol(
        spots, folds, finished, n_failed=len(failures), notes=notes, seed=seed
    )
    table = score_outcomes(spots, folds, finished, seed=seed)
    seconds = {
        name: float(sum(one.seconds for (_, method), one in finished.items() if method == name))
        for name in (*methods, *baselines)
    }
    models: dict[str, dict[str, Model]] = {}
    for (fold, method), one in finished.items():
        if one.model is not None:
            models.setdefault(method, {})[fold] = one.model
    names = tuple(methods), tuple(baselines)
    scores = results.Scores(table, names[0], protocol, names[1], failures, seconds, models=models)
    write_out_of_fold(spots, scores, folds, outcomes, key_added=key_added)
    info(repr(scores))
    return scores


def _finished(outcomes: Outcomes) -> dict[tuple[str, str], Outcome]:
    """Outcomes by fold and method without the failures, all in the same units."""
    finished = {key: one for key, one in outcomes.items() if isinstance(one, Outcome)}
    if not finished:
        first = next(one for one in outcomes.values() if isinstance(one, results.Failure))
        where = f"{first.method} without {first.fold}"
        raise ValueError(f"every method failed in every fold; {where}:\n{first.traceback}")
    units = {name: outcome.units for (_, name), outcome in finished.items()}
    if len(set(units.values())) > 1:
        raise ValueError(f"methods must predict in the same units, but predict in {units}")
    check_same_quantile({name: outcome for (_, name), outcome in finished.items()})
    return finished
