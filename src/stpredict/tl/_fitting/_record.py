"""What a model records about its training."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from stpredict.models._records import TrainingRecord

if TYPE_CHECKING:
    from stpredict.tl._fitting._split import Split

#: Packages whose versions a model records.
_VERSIONS = ("stpredict", "torch", "lightning", "scikit-learn", "spatialdata", "anndata", "numpy")


def training_record(rows: Split, *, best_epochs: tuple[int, ...], seed: int) -> TrainingRecord:
    """Record what a model was trained on."""
    return TrainingRecord(
        sections=rows.sections,
        groups=tuple(sorted(set(rows.groups.tolist()))),
        held_out=rows.held_out,
        n_spots=len(rows.training),
        n_held_out=len(rows.groups) - len(rows.training),
        best_epochs=best_epochs,
        seed=seed,
        versions=package_versions(),
        spots=rows.spots,
        donors=rows.donors,
    )


def package_versions() -> dict[str, str]:
    """Versions of the packages that a model is made with."""
    versions = {}
    for name in _VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return versions
