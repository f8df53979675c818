"""How scores came about, in words; and what is told and kept of a cross-validation."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _keys, _validate, results
from stpredict._log import tell
from stpredict._sdata import _provenance, _sections
from stpredict.tl._crossval._fold_data import genes_are_preselected
from stpredict.tl._crossval._run import Outcome
from stpredict.tl._crossval._score_folds import score_folds
from stpredict.tl._crossval._table import write_table
from stpredict.tl._fitting._runner import versions

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from stpredict.tl._crossval._folds import Folds
    from stpredict.tl._crossval._jobs import Outcomes
    from stpredict.tl._crossval._score_folds import Done


def conclude(
    sdata: SpatialData,
    methods: tuple[str, ...],
    folds: Folds,
    outcomes: Outcomes,
    *,
    seed: int,
) -> results.CrossValidation:
    """Score all that was predicted, write the table, and tell."""
    table = _sections.table_of(sdata)
    done, failures = _sort(methods, folds, outcomes)
    first = next(iter(done.values()))
    known: dict[str, Any] = {
        "methods": list(methods),
        "groups": folds.kind,
        "layer": first.layer or None,
        "units": first.units,
        "seed": seed,
        "leaky": bool(folds.leaks()),
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "protocol": protocol(table, folds, done, n_failed=len(failures)),
    }
    result = results.CrossValidation(
        scores=score_folds(sdata, methods, folds, done, seed=seed),
        methods=methods,
        protocol=known["protocol"],
        leaky=known["leaky"],
        failures=failures,
        settings={
            **known,
            "n_spots": int(table.n_obs),
            "sections": {name: _names(table, rows) for name, rows in folds},
            "seconds": {
                name: float(sum(one.seconds for (_, by), one in done.items() if by == name))
                for name in methods
            },
        },
    )
    write_table(sdata, methods, folds, outcomes, settings=known)
    shown = ["pcc", results.PCC_SHUFFLED, results.PCC_SPATIAL_NULL, "spearman", "rmse"]
    tell(f"{result.protocol}\n{result.summary()[shown].round(3)}")
    return result


def _sort(
    methods: tuple[str, ...], folds: Folds, outcomes: Outcomes
) -> tuple[Done, tuple[results.Failure, ...]]:
    """What worked, in the order of folds and methods, and what did not."""
    done, failures = {}, []
    for fold in folds.names():
        for name in methods:
            outcome = outcomes[fold, name]
            if isinstance(outcome, Outcome):
                done[fold, name] = outcome
            else:
                failures.append(outcome)
    if not done:
        raise ValueError(
            f"every method failed in every fold; {failures[0].method} without "
            f"{failures[0].fold}:\n{failures[0].traceback}"
        )
    (_, name), first = next(iter(done.items()))
    for (_, other), outcome in done.items():
        if outcome.units != first.units:
            raise ValueError(
                f"methods must predict in the same units, {name!r} predicts {first.units!r}, "
                f"{other!r} {outcome.units!r}: give them the same layer= and kind of loss="
            )
    return done, tuple(failures)


def protocol(table: AnnData, folds: Folds, done: Done, *, n_failed: int) -> str:
    """How the scores came about."""
    leaks = folds.leaks()
    one_by_one = all("+" not in name for name in folds.rows)
    parts = [
        f"LEAKY: {leaks} stand on both sides of a split." if leaks else "",
        f"Leave one {folds.kind} out" if one_by_one else f"Grouped by {folds.kind}",
        f"({len(folds.rows)} folds: {_validate.listing(folds.rows)}); {table.n_obs} spots of "
        f"{len(_sections.section_names(table))} sections{_patients(table)}.",
        _genes(table, done),
        "Pearson per gene within each section, mean over genes, then over sections; constant genes "
        f"count as 0. Measured {next(iter(done.values())).units}.",
        "Spots were realigned, those left out too, which takes what was measured there."
        if _provenance.recorded(table, _keys.REALIGN)
        else "",
        f"{n_failed} fits FAILED and are left out." if n_failed else "",
    ]
    return " ".join(part for part in parts if part)


def _patients(table: AnnData) -> str:
    if _keys.PATIENT not in table.obs:
        return ", patients unknown"
    n_patients = table.obs[_keys.PATIENT].nunique()
    return f" of {n_patients} patients" if n_patients > 1 else " of one patient"


def _genes(table: AnnData, done: Done) -> str:
    sizes = sorted({len(outcome.genes) for outcome in done.values()})
    n_genes = f"{sizes[0]} genes" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} genes"
    given = sorted({name for (_, name), outcome in done.items() if not outcome.chosen})
    if genes_are_preselected(table):
        return f"{n_genes}, given in advance."
    flavor = _provenance.recorded(table, "select_genes")["flavor"]
    chosen = f"{n_genes} chosen by {flavor} on the training sections of each fold"
    return chosen + (f"; those of {_validate.listing(given)} given in advance." if given else ".")


def _names(table: AnnData, rows: np.ndarray) -> list[str]:
    return list(dict.fromkeys(_sections.region_of(table)[rows]))
