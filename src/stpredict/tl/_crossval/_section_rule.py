"""When intervals are widened or withheld: measured on the training sections of a model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import KMeans

from stpredict.models._stack import leaves
from stpredict.tl._fitting._inputs import prediction_inputs, tile_embedding
from stpredict.uncertainty import SectionRule, conformal
from stpredict.uncertainty._section_rule import needed_width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict.models import Model
    from stpredict.tl._crossval._held_out import HeldOut
    from stpredict.uncertainty._familiarity import LeftOut

#: Numbers of kinds of tissue into which sections are divided, and the least spots of such a part.
_KINDS, _MIN_SPOTS = (2, 3), 20
#: Principal components that kinds of tissue differ in.
_N_COMPONENTS = 10


def fit_section_rule(
    spots: SpotTable,
    model: Model,
    held_out: HeldOut,
    embedding: NDArray[np.float32],
    left_out: LeftOut,
    *,
    level: float,
) -> SectionRule:
    """Measure the familiarity of groups left out, and the intervals that parts of sections need.

    Features that are standardised within a section hide its composition from the model. Sections of
    another composition are imitated by parts of training sections with one kind of tissue, as if
    the rest of the section did not exist.
    """
    standardizes = any(base.recipe.standardize == "section" for base in leaves(model))
    whole = model.predict_inputs(prediction_inputs(spots, model))[0] if standardizes else None
    medians, references = [], []
    for group, sections in _sections_of_groups(held_out).items():
        familiarity = left_out.without(group)
        of_sections = [float(np.median(familiarity.score(embedding[rows]))) for rows in sections]
        medians.append(float(np.mean(of_sections)))
        if whole is None:
            continue
        others = held_out.groups != group
        errors = (each[others] for each in (held_out.measured, held_out.predicted, held_out.groups))
        intervals = conformal(*errors, level=level)
        for rows, median in zip(sections, of_sections, strict=True):
            own = held_out.measured[rows], held_out.predicted[rows]
            references.append((median, needed_width(*own, intervals)))
            for part in _parts(rows, familiarity.project(embedding[rows])):
                predicted, tiles = _cut_out(spots, model, part)
                # what the other composition changes is added to predictions without the group
                change = predicted - whole[part]
                own = held_out.measured[part], held_out.predicted[part] + change
                median = float(np.median(familiarity.score(tiles)))
                references.append((median, needed_width(*own, intervals)))
    return SectionRule.fit(medians, references)


def _cut_out(
    spots: SpotTable, model: Model, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predictions and embedding of a part of a section, as if it were the whole section."""
    section = spots.subset(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few spots
        inputs, tiles = prediction_inputs(section, model), tile_embedding(section, model)
    return model.predict_inputs(inputs)[0], tiles


def _sections_of_groups(held_out: HeldOut) -> dict[str, list[NDArray[np.intp]]]:
    """Ascending rows of the sections of every group."""
    rows = {}
    for group in np.unique(held_out.groups):
        inside = held_out.groups == group
        names = np.unique(held_out.sections[inside])
        rows[group] = [np.flatnonzero(inside & (held_out.sections == name)) for name in names]
    return rows


def _parts(rows: NDArray[np.intp], tiles: NDArray[np.float32]) -> Iterator[NDArray[np.intp]]:
    """Rows of a section with one kind of tissue, by clusters of its tiles."""
    for n_kinds in _KINDS:
        if len(rows) < n_kinds * _MIN_SPOTS:
            continue
        kinds = KMeans(n_kinds, n_init=5, random_state=0).fit_predict(tiles[:, :_N_COMPONENTS])
        for kind in range(n_kinds):
            if (kinds == kind).sum() >= _MIN_SPOTS:
                yield rows[kinds == kind]
