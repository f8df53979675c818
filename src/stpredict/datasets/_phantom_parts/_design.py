"""Checked options of the phantom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpredict import _validate

_DIAMETER = 0.55  # of the pitch, as on Visium: 55 µm spots, 100 µm apart
_CELL_UM = 8.0
_MOST_PX = 30_000  # per side; the maps of a larger image do not fit in memory
_MOST_COUNTS = 1e9  # larger numbers are not exact in float32
_MIN_PITCH_PX = 8  # smaller tiles show no nuclei
# Independent random streams of a section, so that an option changes only what it is for.
_STREAMS = ("tissue", "stain", "spots", "expression", "counts", "ambient")


@dataclass(frozen=True)
class Design:
    """Options of `stpredict.datasets.phantom` that hold for every section."""

    size_px: int | tuple[int, int]
    mpp: float
    spots: str
    pitch_um: float
    tile_um: float
    counts_per_spot: float
    stain_variation: float
    off_tissue: int
    misalignment_um: tuple[float, float]
    misalignment_deg: float
    donor_variation: float
    seed: int

    def __post_init__(self) -> None:
        # types are those of the annotations of `phantom`, which are checked there
        for side in self.shape:
            _validate.whole_number("size_px", side, at_most=_MOST_PX)
        _validate.whole_number("off_tissue", self.off_tissue, at_least=0)
        _validate.seed(self.seed)
        for name in ("mpp", "pitch_um", "tile_um", "counts_per_spot"):
            _validate.positive(name, getattr(self, name))
        for name in ("stain_variation", "donor_variation"):
            _validate.not_negative(name, getattr(self, name))
        if self.pitch_px < _MIN_PITCH_PX:
            pitch = f"pitch_um={self.pitch_um:g} is only {self.pitch_px:.3g} px at mpp={self.mpp:g}"
            raise ValueError(f"{pitch}. At least {_MIN_PITCH_PX} px are needed")
        if self.pitch_px > min(self.shape):
            raise ValueError(
                f"no spot of pitch_um={self.pitch_um:g} ({self.pitch_px:.3g} px) fits the image of "
                f"{self.shape[1]} × {self.shape[0]} px. Choose a larger size_px="
            )
        if self.counts_per_spot > _MOST_COUNTS:
            raise ValueError(f"counts_per_spot={self.counts_per_spot:g} is above {_MOST_COUNTS:g}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.size_px if isinstance(self.size_px, tuple) else (self.size_px, self.size_px)

    @property
    def pitch_px(self) -> float:
        """Distance between neighbouring spots in pixels."""
        return self.pitch_um / self.mpp

    @property
    def diameter_um(self) -> float:
        """Diameter of a spot or cell in µm."""
        return _CELL_UM if self.spots == "cells" else _DIAMETER * self.pitch_um

    @property
    def misalignment(self) -> NDArray[np.float64]:
        """Affine (3, 3) in µm, true to recorded: rotation around the centre, then shift."""
        angle = np.deg2rad(self.misalignment_deg)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        center = np.array(self.shape[::-1]) * self.mpp / 2
        affine = np.eye(3)
        affine[:2, :2] = rotation
        affine[:2, 2] = center - rotation @ center + self.misalignment_um
        return affine

    def random_streams(self, index: int) -> dict[str, np.random.Generator]:
        """Random generators of the section with an index, by what they draw."""
        return {
            stream: np.random.default_rng([self.seed, index + 1, i])
            for i, stream in enumerate(_STREAMS)
        }

    def parameters(self) -> dict[str, Any]:
        """Options in types that a table's ``uns`` can store."""
        shift = np.array(self.misalignment_um, dtype=float)
        return {**vars(self), "size_px": np.array(self.shape), "misalignment_um": shift}
