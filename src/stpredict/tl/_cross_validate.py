"""Leave groups out in turn, and score methods on what they have not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict import results
from stpredict._sdata import _sections
from stpredict._sdata._spot_table import open_table
from stpredict.tl._crossval._fold_data import check_repeatable
from stpredict.tl._crossval._folds import folds_of
from stpredict.tl._crossval._jobs import run_folds
from stpredict.tl._crossval._protocol import conclude
from stpredict.tl._crossval._store import Store, fingerprint
from stpredict.tl._fitting._bases import check_fits, check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from spatialdata import SpatialData

    from stpredict.models import Model


def cross_validate(
    sdata: SpatialData,
    methods: Mapping[str, Callable[[SpatialData], Model]],
    *,
    groups: str | None = None,
    n_folds: int | None = None,
    folder: str | Path | None = None,
    allow_leak: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> results.CrossValidation:
    """Score methods on groups that they were not fitted on, with nulls and a ceiling beside.

    Every group is left out in turn. On the other groups, all that learns from data is done anew:
    steps of `pp` that were run on all sections (`pp.select_genes` with ``n_top_genes``, the reference of
    `pp.normalize_stain`, ranks among selected genes, weights of groups), and in the methods the
    scaling, factors, early stopping and alpha. So run the steps on all sections, as if there were
    no test, and leave the rest to this function. Hyperparameters are chosen inside the folds by
    `tl.fit_tuned`, which is a method like others.

    Beside the methods stand the mean of the training rows, tuned ridge regression on the same
    embedding, and the mean of the *measured* neighbours, which no model is given; beside each
    method its predictions shuffled within the section, and moved within it by random turns and
    shifts, which keep their patterns: a model that only paints smooth maps scores as much there.
    Above stands what the noise of the counts leaves to be predicted, by thinning them.

    Where methods see several embeddings, ``tuned_ridge`` stands on that of the first,
    ``tuned_ridge_<slot>`` on each other, and ``tuned_ridge_tiles`` beside models on pixels.

    Folds run side by side on the workers of a `dask.distributed` client, where one is active.

    Parameters
    ----------
    sdata
        Sections with all that the methods take.
    methods
        By name, functions that take sections and return a fitted model, such as
        ``{"ridge": stp.tl.fit_ridge, "deepspot_svd": functools.partial(stp.tl.fit_deepspot,
        targets="svd")}``. They must predict in the same units. Names are those of layers: letters,
        digits, ``_``, ``.``, ``-``.
    groups
        Column of ``obs`` whose groups are left out; by default the patient where there are several,
        else the section.
    n_folds
        Leave out groups in so many folds of about equal size; by default one at a time.
    folder
        Where finished folds are kept: called again after an interruption, or with more methods, on
        the same data, only what is missing is run. A function of yours is known by its name:
        after a change inside it, use another folder.
    allow_leak
        Go on where a patient or a section stands on both sides of a split. The result then says
        LEAKY wherever it is shown.
    seed
        Of shuffles, shifts and thinning. Methods have seeds of their own.
    device
        Where models predict: ``"auto"``: cuda, then mps, then cpu.

    Returns
    -------
    CrossValidation
        Tidy scores, protocol and failures; `stpredict.results.CrossValidation`. Writes
        ``tables["out_of_fold"]``, which annotates the same shapes, with all genes predicted in any
        fold: ``X`` (n_obs, n_genes) float32 what was measured, in the units of the models,
        ``layers[<method>]`` and ``layers["tuned_ridge"]`` what was predicted by models that had not
        seen the row's group; all are NaN for genes not selected in that fold, and a method's where
        it failed; ``obs["fold"]``, ``var["n_folds"]`` in how many folds a gene was predicted.

    Raises
    ------
    KeyError
        If ``groups`` is no column, or what a method takes is missing in all folds.
    TypeError
        If a method is no function.
    ValueError
        If there is a single group, rows have no group, a patient or section stands on both sides of
        a split, methods predict in different units, or every method failed. An error in some folds
        only is told, and kept in ``failures``.
    FileExistsError
        If ``folder`` holds something else.

    References
    ----------
    Neufeld et al., Inference after latent variable estimation for single-cell RNA sequencing data,
    Biostatistics 2024 (thinning).

    Examples
    --------
    >>> import stpredict as stp
    >>> stp.settings.verbosity = 0
    >>> sdata = stp.datasets.phantom(3)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> result = stp.tl.cross_validate(sdata, {"ridge": stp.tl.fit_ridge})
    >>> summary = result.summary()
    >>> bool(summary.loc["ridge", "pcc"] > summary.loc["ridge", "pcc_spatial_null"] + 0.1)
    True
    >>> stp.settings.verbosity = 1
    """
    check_fits(methods, what="methods")
    if not methods:
        raise ValueError("methods= is empty: give functions by name, {'ridge': stp.tl.fit_ridge}")
    check_names(methods, what="methods", reserved=(*results.REFERENCES, "measured"))
    table = _sections.table_of(sdata)
    _sections.sections(sdata)
    folds = folds_of(table, groups, purpose="cross-validation", n_folds=n_folds)
    if not allow_leak:
        folds.refuse_leaks(
            groups, otherwise="; allow_leak=True goes on, and calls the result leaky"
        )
    check_repeatable(open_table(sdata), folds)
    for _, rows in folds:
        names, n_rows = np.unique(_sections.region_of(table)[rows], return_counts=True)
        if n_rows.min() < 2:
            raise ValueError(
                f"section {names[n_rows.argmin()]!r} has a single spot left out: a correlation "
                "needs two"
            )
    store = Store(folder, fingerprint(table, methods, folds, device=device) if folder else {})
    outcomes = run_folds(sdata, methods, folds, store, device=device)
    return conclude(sdata, tuple(methods), folds, outcomes, seed=seed)
