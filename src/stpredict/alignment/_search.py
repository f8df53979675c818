"""The search for the motion that agrees best with the evidence.

Arrays only; lengths in µm from the corner of the image, x before y.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize
from scipy.spatial import cKDTree

from stpredict.alignment._evidence import Evidence, basis_of, explained_variance
from stpredict.alignment._motion import motion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Motions, and what each adds to a shift.
MOTIONS = {"translation": (), "rigid": ("angle",), "similarity": ("angle", "log_scale")}
#: Coarse search: how far, and in steps of what; degrees, and natural logarithm of the scale.
_REACH = {"angle": 5.0, "log_scale": 0.05}
_STEP = {"angle": 2.5, "log_scale": 0.05}
#: Steps of the coarse search in pitches; both signals are about two pitches wide.
_SHIFT_STEP = 1 / 3
#: Starting points of the fine search.
_N_STARTS = 3
#: Spots and rim points looked at, at most: more do not move the estimate.
_MOST_POINTS = 4000
#: Weight of the tissue contrast: on phantoms, where the truth is known, half leaves spots closer to
#: it than all (which follows the detected outline too far) or none.
_OUTLINE = 0.5
#: Sections in their places gain up to 0.02; shifts of a quarter of a pitch take more.
_LEAST_GAIN = 0.03
#: All symmetries of the square but the identity.
_SYMMETRIES = (
    ((0, -1), (1, 0)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0)),
    ((-1, 0), (0, 1)), ((1, 0), (0, -1)), ((0, 1), (1, 0)), ((0, -1), (-1, 0)),
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """The best motion found, beside no motion.

    Attributes
    ----------
    matrix
        (3, 3) motion in µm.
    before, after
        Tissue contrast and explained variance without and with it.
    noise
        Gain in explained variance that a search finds where there is nothing to find: the largest
        of seven, with the section's expression turned and mirrored, which keeps its patterns.
    shifts
        (s,) shifts of the coarse search in µm.
    surface
        (s, s) score by shift in y and x, at the best angle and scale.
    """

    matrix: NDArray[np.float64]
    before: tuple[float, float]
    after: tuple[float, float]
    noise: float
    shifts: NDArray[np.float64]
    surface: NDArray[np.float64]

    @property
    def gain(self) -> float:
        """What the motion adds to the score."""
        return score(self.after) - score(self.before)

    @property
    def required(self) -> float:
        """What the gain must exceed: chance, and what sections gain that are in their places."""
        return max(self.noise, _LEAST_GAIN)

    @property
    def is_better(self) -> bool:
        """Whether the gain is more than is required."""
        return self.gain > self.required


def score(signals: tuple[float, float]) -> float:
    """What is searched for the highest: half the tissue contrast, and the explained variance."""
    contrast, explained = signals
    return _OUTLINE * contrast + explained


def estimate(evidence: Evidence, *, kind: str, max_shift: float) -> Estimate:
    """Find the motion with the highest score, coarse to fine.

    Parameters
    ----------
    evidence
        Of one section.
    kind
        One of `MOTIONS`.
    max_shift
        Longest shift in x and in y, µm.
    """
    seen = _subset(evidence)
    center = evidence.centers.mean(axis=0)
    extra = MOTIONS[kind]
    n_steps = max(1, round(max_shift / (_SHIFT_STEP * evidence.pitch)))
    shifts = np.linspace(-max_shift, max_shift, 2 * n_steps + 1)
    turns = [np.arange(-_REACH[name], _REACH[name] + 1e-9, _STEP[name]) for name in extra]

    def matrix_of(parameters: Sequence[float]) -> NDArray[np.float64]:
        values = dict(zip(extra, parameters[2:], strict=True))
        return motion(parameters[:2], **values, center=center)

    candidates = list(itertools.product(shifts, shifts, *turns))
    scores = np.array([score(seen.signals(matrix_of(each))) for each in candidates])
    # peaks of the coarse search that are apart from one another
    starts: list[tuple[float, ...]] = []
    for index in np.argsort(-scores):
        start = candidates[index]
        if all(np.hypot(start[0] - s[0], start[1] - s[1]) > evidence.pitch / 2 for s in starts):
            starts.append(start)
        if len(starts) == _N_STARTS:
            break
    units = np.array([evidence.pitch / 4, evidence.pitch / 4, *(_STEP[name] / 2 for name in extra)])
    reach = np.array([max_shift, max_shift, *(_REACH[name] for name in extra)])
    fits = [
        optimize.minimize(
            lambda scaled: -score(seen.signals(matrix_of(scaled * units))),
            np.asarray(start) / units,
            method="Nelder-Mead",
            bounds=list(zip(-reach / units, reach / units, strict=True)),
            options={"initial_simplex": _simplex(np.asarray(start) / units), "xatol": 0.02,
                     "fatol": 1e-5},
        )
        for start in starts
    ]  # fmt: skip
    matrix = matrix_of(min(fits, key=lambda fit: fit.fun).x * units)
    best = scores.reshape(len(shifts), len(shifts), -1)
    along = best[..., np.unravel_index(best.argmax(), best.shape)[2]]
    return Estimate(
        matrix=matrix,
        before=seen.signals(np.eye(3)),
        after=seen.signals(matrix),
        noise=_noise(seen, shifts),
        shifts=shifts,
        surface=along.T,
    )


def _simplex(start: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vstack([start, start + np.eye(len(start))])


def _subset(evidence: Evidence) -> Evidence:
    """Fewer spots and rim points, where there are very many."""
    n = len(evidence.centers)
    if n <= _MOST_POINTS:
        return evidence
    rng = np.random.default_rng(0)
    # rims of spots that are left out would lose their owner: keep all spots that own one, first
    owners = np.unique(evidence.rim_owner)
    if len(owners) > _MOST_POINTS // 2:
        owners = np.sort(rng.choice(owners, _MOST_POINTS // 2, replace=False))
    others = np.setdiff1d(np.arange(n), owners)
    kept = np.sort(np.r_[owners, rng.choice(others, _MOST_POINTS - len(owners), replace=False)])
    of_kept = np.isin(evidence.rim_owner, kept)
    return Evidence(
        tissue=evidence.tissue,
        features=evidence.features,
        um_per_px=evidence.um_per_px,
        centers=evidence.centers[kept],
        rim=evidence.rim[of_kept],
        rim_owner=np.searchsorted(kept, evidence.rim_owner[of_kept]),
        expression=evidence.expression[kept],
        pitch=evidence.pitch,
    )


def _noise(evidence: Evidence, shifts: NDArray[np.float64]) -> float:
    """Gain in explained variance that the search finds where there is nothing to find."""
    around = evidence.centers - evidence.centers.mean(axis=0)
    nearest = cKDTree(around)
    turned = [
        evidence.expression[nearest.query(around @ np.array(symmetry))[1]]
        for symmetry in _SYMMETRIES
    ]

    def explained(shift: tuple[float, ...]) -> list[float]:
        basis = basis_of(evidence.at(evidence.centers + shift))
        return [explained_variance(basis, expression) for expression in turned]

    candidates = list(itertools.product(shifts, shifts))
    contrast = np.array([evidence.contrast(motion(c, center=(0, 0))) for c in candidates])
    moved = np.array([explained(shift) for shift in candidates])
    # where the outline holds the search, chance has less to choose from
    best = (_OUTLINE * contrast[:, None] + moved).argmax(axis=0)
    gain = moved[best, np.arange(len(turned))] - np.array(explained((0.0, 0.0)))
    return float(max(gain.max(), 0))
