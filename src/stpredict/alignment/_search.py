"""Search for the motion that agrees best with the evidence."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize
from scipy.spatial import cKDTree

from stpredict.alignment._evidence import Evidence, explained_share, orthonormal_basis
from stpredict.alignment._motion import motion_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Parameters of each kind of motion in addition to the shift.
MOTIONS: dict[str, tuple[str, ...]] = {
    "translation": (),
    "rigid": ("angle",),
    "similarity": ("angle", "log_scale"),
}
#: Range and step of the coarse search, in degrees and natural logarithm of the scale.
_REACH = {"angle": 5.0, "log_scale": 0.05}
_STEP = {"angle": 2.5, "log_scale": 0.05}
#: Step of the coarse search in pitches. Both signals are about two pitches wide.
_SHIFT_STEP = 1 / 3
#: Starting points of the fine search.
_N_STARTS = 3
#: Largest number of spots that are used; more do not change the estimate.
_MAX_POINTS = 4000
#: Weight of the tissue contrast. On phantoms with a known motion, 0.5 has a smaller error than
#: 1 (which follows the detected outline too closely) and 0.
_CONTRAST_WEIGHT = 0.5
#: Correctly placed sections gain up to 0.02; a shift of a quarter of a pitch gains more.
_MIN_GAIN = 0.03
#: All symmetries of the square except the identity.
_SYMMETRIES = (
    ((0, -1), (1, 0)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0)),
    ((-1, 0), (0, 1)), ((1, 0), (0, -1)), ((0, 1), (1, 0)), ((0, -1), (-1, 0)),
)  # fmt: skip


@dataclass(frozen=True)
class MotionEstimate:
    """The best motion, and its signals compared with no motion."""

    matrix: NDArray[np.float64]  # (3, 3) motion in µm
    before: tuple[float, float]  # tissue contrast and explained variance without the motion
    after: tuple[float, float]
    noise: float  # gain in explained variance by chance
    shifts: NDArray[np.float64]  # (s,) shifts of the coarse search in µm
    surface: NDArray[np.float64]  # (s, s) score by shift in y and x, at the best angle and scale

    @property
    def gain(self) -> float:
        """Increase of the score by the motion."""
        return score(self.after) - score(self.before)

    @property
    def required(self) -> float:
        """Threshold for the gain: the gain by chance, and that of correctly placed sections."""
        return max(self.noise, _MIN_GAIN)

    @property
    def is_better(self) -> bool:
        """Whether the gain exceeds the threshold."""
        return self.gain > self.required


def score(signals: tuple[float, float]) -> float:
    """Objective of the search: weighted tissue contrast plus explained variance."""
    contrast, explained = signals
    return _CONTRAST_WEIGHT * contrast + explained


def estimate_motion(evidence: Evidence, *, kind: str, max_shift: float) -> MotionEstimate:
    """Find the motion with the highest score, by a coarse grid search and a fine local search."""
    subset = _subset(evidence)
    center = evidence.centers.mean(axis=0)
    extra = MOTIONS[kind]
    n_steps = max(1, round(max_shift / (_SHIFT_STEP * evidence.pitch)))
    shifts = np.linspace(-max_shift, max_shift, 2 * n_steps + 1)
    grids = [np.arange(-_REACH[name], _REACH[name] + 1e-9, _STEP[name]) for name in extra]

    def matrix_of(parameters: Sequence[float]) -> NDArray[np.float64]:
        values = dict(zip(extra, parameters[2:], strict=True))
        return motion_matrix(parameters[:2], **values, center=center)

    candidates = list(itertools.product(shifts, shifts, *grids))
    scores = np.array([score(subset.signals(matrix_of(each))) for each in candidates])
    # start from the best grid points that are at least half a pitch from each other
    starts: list[tuple[float, ...]] = []
    for index in np.argsort(-scores):
        start = candidates[index]
        if all(np.hypot(start[0] - s[0], start[1] - s[1]) > evidence.pitch / 2 for s in starts):
            starts.append(start)
        if len(starts) == _N_STARTS:
            break
    # parameters are divided by half a grid step or a quarter of a pitch, to have similar scales
    units = np.array([evidence.pitch / 4, evidence.pitch / 4, *(_STEP[name] / 2 for name in extra)])
    reach = np.array([max_shift, max_shift, *(_REACH[name] for name in extra)])
    fits = [
        optimize.minimize(
            lambda scaled: -score(subset.signals(matrix_of(scaled * units))),
            start,
            method="Nelder-Mead",
            bounds=list(zip(-reach / units, reach / units, strict=True)),
            options={"initial_simplex": _simplex(start), "xatol": 0.02, "fatol": 1e-5},
        )
        for start in np.array(starts) / units
    ]
    matrix = matrix_of(min(fits, key=lambda fit: fit.fun).x * units)
    scores = scores.reshape(len(shifts), len(shifts), -1)
    at_best_angle = scores[..., np.unravel_index(scores.argmax(), scores.shape)[2]]
    return MotionEstimate(
        matrix=matrix,
        before=subset.signals(np.eye(3)),
        after=subset.signals(matrix),
        noise=_noise(subset, shifts),
        shifts=shifts,
        surface=at_best_angle.T,
    )


def _simplex(start: NDArray[np.float64]) -> NDArray[np.float64]:
    # steps of one unit along each axis, independent of the start
    return np.vstack([start, start + np.eye(len(start))])


def _subset(evidence: Evidence) -> Evidence:
    """Random subset of very many spots, and their rim points."""
    n = len(evidence.centers)
    if n <= _MAX_POINTS:
        return evidence
    rng = np.random.default_rng(0)
    # rim points need their spot: select the spots with a rim first
    owners = np.unique(evidence.rim_owner)
    if len(owners) > _MAX_POINTS // 2:
        owners = np.sort(rng.choice(owners, _MAX_POINTS // 2, replace=False))
    others = np.setdiff1d(np.arange(n), owners)
    spots = np.sort(np.r_[owners, rng.choice(others, _MAX_POINTS - len(owners), replace=False)])
    in_subset = np.isin(evidence.rim_owner, spots)
    return replace(
        evidence,
        centers=evidence.centers[spots],
        rim=evidence.rim[in_subset],
        rim_owner=np.searchsorted(spots, evidence.rim_owner[in_subset]),
        expression=evidence.expression[spots],
    )


def _noise(evidence: Evidence, shifts: NDArray[np.float64]) -> float:
    """Largest gain in explained variance of searches with rotated and mirrored expression."""
    # these symmetries move the pattern of expression but preserve its smoothness
    centered = evidence.centers - evidence.centers.mean(axis=0)
    tree = cKDTree(centered)
    nearest = [tree.query(centered @ np.array(symmetry))[1] for symmetry in _SYMMETRIES]
    controls = [evidence.expression[index] for index in nearest]

    def explained_at(shift: tuple[float, ...]) -> list[float]:
        basis = orthonormal_basis(evidence.features_at(evidence.centers + shift))
        return [explained_share(basis, expression) for expression in controls]

    candidates = list(itertools.product(shifts, shifts))
    contrast = np.array([evidence.contrast(motion_matrix(c, center=(0, 0))) for c in candidates])
    explained = np.array([explained_at(shift) for shift in candidates])
    # the outline restricts the search, also that of the controls
    best = (_CONTRAST_WEIGHT * contrast[:, None] + explained).argmax(axis=0)
    gain = explained[best, np.arange(len(controls))] - np.array(explained_at((0.0, 0.0)))
    return float(max(gain.max(), 0))
