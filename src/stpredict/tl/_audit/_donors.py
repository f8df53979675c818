"""Pairs of sections, the evidence that they are of one donor, and a verdict."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stpredict import _validate
from stpredict.tl._audit import _halves
from stpredict.tl._audit._expression import expression_halves, sex_of_sections
from stpredict.tl._audit._stain import stain_halves
from stpredict.tl._fitting._split import group_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable

ONE_DONOR, ALIKE, UNCLEAR, DIFFERENT = "one donor", "alike", "unclear", "different"

#: Least similarity of one donor: half of that between halves of one section. Of all pairs of the 36
#: sections of HER2ST, those of one patient have at least 0.74 (profile) and 0.91 (immune genes);
#: those of two at most 0.21 and 0.87, never both above 0.5.
_SIMILAR = 0.5
#: Largest difference of sections that are alike. Of the same pairs, those of one patient differ by
#: up to 5.5 (profile) and 4.6 (immune genes), those of two by at least 5.6 and 9.4.
_ALIKE = {"profile": 5.0, "immune": 7.0}
#: Fewest labels whose sections are compared with what distinguishes them from all others.
_MIN_LABELS = 3
#: Fewest spots with counts in a section, whose halves are compared.
_MIN_SPOTS = 20
_ALPHA = 0.05


def donors_of_sections(spots: SpotTable, groups: str | None) -> dict[str, str]:
    """Label of the donor of each section."""
    rows, kind = group_labels(spots, groups)
    library = np.asarray(spots.counts.sum(axis=1)).ravel()
    labels = {}
    for section, places in spots.section_rows.items():
        values = sorted(set(rows[places].tolist()))
        if len(values) > 1:
            raise ValueError(
                f"section {section!r} has several donors in obs[{kind!r}]: "
                f"{_validate.listing(values)}. Name a column with one for each section as groups="
            )
        labels[section] = values[0]
        n = int((library[places] > 0).sum())
        if n < _MIN_SPOTS:
            raise ValueError(
                f"section {section!r} has {n} spots with counts, at least {_MIN_SPOTS} are needed"
            )
    return labels


def compare_sections(
    spots: SpotTable, labels: dict[str, str], *, seed: int, stain: bool = True
) -> pd.DataFrame:
    """Evidence and verdict for every pair of sections, whose donors are labelled."""
    random = np.random.default_rng(seed)
    names, donors = list(labels), list(labels.values())
    halves = expression_halves(spots, random)
    index = np.array(list(combinations(range(len(names)), 2))).T
    first, second = index
    columns: dict[str, object] = {
        f"{what}_{place}": [values[i] for i in part]
        for what, values in (("section", names), ("donor", donors))
        for place, part in ((1, first), (2, second))
    }
    sex = sex_of_sections(spots).reindex(names).tolist()
    columns |= {f"sex_{place}": [sex[i] for i in part] for place, part in ((1, first), (2, second))}
    n_pairs = len(first)
    pairs = pd.DataFrame(columns)
    comparable = len(set(donors)) >= _MIN_LABELS
    z = np.zeros(n_pairs)
    for name in ("profile", "immune"):
        difference, similarity = np.full((2, n_pairs), np.nan)
        if name in halves:
            difference = _halves.differences(halves[name])[first, second]
        if name in halves and comparable:
            similarity = _halves.similarities(halves[name], donors)[first, second]
            z += _halves.z_scores(halves[name], donors, random)[first, second]
        pairs[f"{name}_difference"], pairs[f"{name}_similarity"] = difference, similarity
    if stain:
        pairs["stain_difference"] = _halves.differences(stain_halves(spots))[first, second]
    pairs["p"] = _p_values(pairs, z / np.sqrt(len(halves))) if comparable else np.nan
    pairs["verdict"] = _verdicts(pairs)
    return pairs


def notes_on_donors(spots: SpotTable, groups: str | None, *, seed: int) -> tuple[str, ...]:
    """Sections that look like one donor but are labelled as several; () if they cannot be audited.

    A split between them leaks.
    """
    try:
        labels = donors_of_sections(spots, groups)
        if len(set(labels.values())) < _MIN_LABELS:
            return ()
        pairs = compare_sections(spots, labels, seed=seed, stain=False)
    except ValueError:  # without counts, with few spots or few genes
        return ()
    pairs = _with_two_labels(pairs, ONE_DONOR)
    if not len(pairs):
        return ()
    return (f"{_in_words(pairs)} look like ONE DONOR: the split may leak (stp.tl.audit_donors).",)


def summary(pairs: pd.DataFrame) -> str:
    """What an audit shows, in a few lines."""
    n_sections = pairs[["section_1", "section_2"]].stack().nunique()
    n_donors = pairs[["donor_1", "donor_2"]].stack().nunique()
    lines = [f"{n_sections} sections, labelled as {n_donors} donors."]
    one, alike = (_with_two_labels(pairs, verdict) for verdict in (ONE_DONOR, ALIKE))
    if len(one):
        lines.append(f"Look like one donor: {_in_words(one)}.")
    if len(alike):
        lines.append(
            f"Differ no more than sections of one donor: {_in_words(alike)}. Whether they are of "
            "one is open: no other donor shows how much donors differ here."
        )
    same = pairs["donor_1"] == pairs["donor_2"]
    different = pairs[same & (pairs["verdict"] == DIFFERENT)]
    if len(different):
        lines.append(f"Look like two donors: {_in_words(different)}.")
    if len(lines) == 1:
        lines.append("No pair contradicts its labels.")
    return " ".join(lines)


def _with_two_labels(pairs: pd.DataFrame, verdict: str) -> pd.DataFrame:
    return pairs[(pairs["donor_1"] != pairs["donor_2"]) & (pairs["verdict"] == verdict)]


def _in_words(pairs: pd.DataFrame) -> str:
    names = pairs[["section_1", "donor_1", "section_2", "donor_2"]].to_numpy()
    return _validate.listing(f"{first} ({a}) and {second} ({b})" for first, a, second, b in names)


def _p_values(pairs: pd.DataFrame, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p values of the pairs that are labelled as two donors; NaN for the others."""
    tested = (pairs["donor_1"] != pairs["donor_2"]).to_numpy()
    p = np.full(len(pairs), np.nan)
    p[tested] = _halves.holm(z[tested])
    return p


def _verdicts(pairs: pd.DataFrame) -> NDArray[np.str_]:
    sexes = pairs[["sex_1", "sex_2"]].to_numpy()
    conflict = (sexes[:, 0] != sexes[:, 1]) & (sexes != "").all(axis=1)
    differences = np.array([pairs[f"{name}_difference"] for name in _ALIKE])
    similarities = np.array([pairs[f"{name}_similarity"] for name in _ALIKE])
    limits = np.array(list(_ALIKE.values()))[:, None]
    measured = ~np.isnan(differences)
    exceeds = differences > limits  # False for NaN
    # a pair with one label was not tested: the permutation only guards against few genes
    significant = ~(pairs["p"].to_numpy() > _ALPHA)
    similar = ((similarities >= _SIMILAR) | ~measured).all(axis=0) & measured.any(axis=0)
    stands_out = similar & significant & ~conflict
    verdict = np.full(len(pairs), UNCLEAR, dtype="<U9")
    verdict[exceeds[measured.any(axis=1)].all(axis=0) | conflict] = DIFFERENT
    verdict[~exceeds.any(axis=0) & measured.any(axis=0) & ~conflict] = ALIKE
    verdict[stands_out] = ONE_DONOR
    return verdict
