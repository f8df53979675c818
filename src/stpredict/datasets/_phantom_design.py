"""Options of a phantom, checked, and where they put its spots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _validate
from stpredict.datasets import _phantom_counts as _counts
from stpredict.datasets._phantom_fields import REGIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.datasets._phantom_image import Tissue

LAYOUTS = ("hexagonal", "square", "cells")
_DIAMETER = 0.55  # of the pitch, as on Visium: 55 µm spots, 100 µm apart
_CELL_UM = 8.0
_MIN_PITCH_PX = 8  # below, a tile holds no picture
# Share of its tile that must be tissue for a spot, for a cell, and may be for one beside it.
_SPOT_TISSUE, _CELL_TISSUE, _GLASS_TISSUE = 0.8, 0.5, 0.01


@dataclass(frozen=True)
class Spots:
    """Spots or cells of one section; those beside the tissue come last.

    Attributes
    ----------
    xy
        ``(n, 2)``: true positions x, y in pixels.
    on_tissue
        ``(n,)``, bool.
    region
        ``(n,)``: index into `REGIONS`, one more for glass.
    radii_um
        Of cells, ``(n,)``: radius of the nucleus, NaN where there is none.
    """

    xy: NDArray[np.float64]
    on_tissue: NDArray[np.bool_]
    region: NDArray[np.intp]
    radii_um: NDArray[np.float64] | None


@dataclass(frozen=True)
class Design:
    """Options of `stpredict.datasets.phantom`, with all defaults filled in."""

    size_px: int | tuple[int, int]
    mpp: float
    layout: str
    pitch_um: float
    tile_um: float
    counts_per_spot: float
    stain_variation: float
    off_tissue: int
    misalignment_um: tuple[float, float]
    misalignment_deg: float
    seed: int

    def __post_init__(self) -> None:
        """Check every option."""
        if isinstance(self.size_px, tuple) and len(self.size_px) != 2:
            raise ValueError(f"size_px must be one side or (height, width): {self.size_px!r}")
        for side in self.shape:
            _integer("size_px", side, at_least=1)
        _integer("off_tissue", self.off_tissue, at_least=0)
        _integer("seed", self.seed, at_least=0)
        _validate.one_of("spots", self.layout, LAYOUTS)
        _validate.positive("mpp", self.mpp, unit="µm per pixel")
        _validate.positive("pitch_um", self.pitch_um, unit="µm")
        _validate.positive("tile_um", self.tile_um, unit="µm")
        _validate.positive("counts_per_spot", self.counts_per_spot)
        if not np.isfinite(self.stain_variation) or self.stain_variation < 0:
            raise ValueError(f"stain_variation must be 0 or more: {self.stain_variation!r}")
        if self.pitch_px < _MIN_PITCH_PX:
            raise ValueError(
                f"pitch_um={self.pitch_um:g} is only {self.pitch_px:.3g} px at mpp={self.mpp:g}; "
                f"at least {_MIN_PITCH_PX} px are needed: choose a larger pitch_um= or a smaller "
                "mpp="
            )
        moved = np.asarray(self.misalignment_um, dtype=float)
        if moved.shape != (2,) or not np.isfinite([*moved, self.misalignment_deg]).all():
            raise ValueError(
                "misalignment_um must be two finite numbers (x, y) and misalignment_deg one: "
                f"{self.misalignment_um!r}, {self.misalignment_deg!r}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.size_px if isinstance(self.size_px, tuple) else (self.size_px, self.size_px)

    @property
    def pitch_px(self) -> float:
        """Distance between spots in pixels."""
        return self.pitch_um / self.mpp

    @property
    def diameter_um(self) -> float:
        """Diameter of a spot or cell."""
        return _CELL_UM if self.layout == "cells" else _DIAMETER * self.pitch_um

    @property
    def misalignment(self) -> NDArray[np.float64]:
        """Affine (3, 3) in µm, true to recorded: rotate around the centre, then shift."""
        angle = np.deg2rad(self.misalignment_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        center = np.array(self.shape[::-1]) * self.mpp / 2
        affine = np.eye(3)
        affine[:2, :2] = turn
        affine[:2, 2] = center - turn @ center + self.misalignment_um
        return affine

    def parameters(self) -> dict[str, Any]:
        """Options as a table's ``uns`` can hold them."""
        return {
            "size_px": np.array(self.shape),
            "mpp": float(self.mpp),
            "spots": self.layout,
            "pitch_um": float(self.pitch_um),
            "tile_um": float(self.tile_um),
            "counts_per_spot": float(self.counts_per_spot),
            "stain_variation": float(self.stain_variation),
            "off_tissue": int(self.off_tissue),
            "misalignment_um": np.array(self.misalignment_um, dtype=float),
            "misalignment_deg": float(self.misalignment_deg),
            "seed": int(self.seed),
        }

    def place(self, rng: np.random.Generator, tissue: Tissue, name: str) -> Spots:
        """Choose the positions on the tissue of a section, and those beside it."""
        height, width = self.shape
        margin = self.tile_um / self.mpp / 2  # so that the whole tile lies in the image
        cells = self.layout == "cells"
        if cells:
            glass = rng.uniform(0, 1, (20 * self.off_tissue, 2)) * (width, height)
            candidates = np.vstack([tissue.nuclei, glass])
        else:
            candidates = _counts.spot_grid(
                self.shape, self.layout, pitch_px=self.pitch_px, margin_px=margin
            )
        inside = (candidates >= margin) & (candidates <= np.array([width, height]) - margin)
        candidate_on = np.arange(len(candidates)) < len(tissue.nuclei) if cells else True
        share = _counts.tile_means(tissue.mask, candidates, 2 * margin)
        on = np.flatnonzero(
            inside.all(axis=1) & candidate_on & (share >= (_CELL_TISSUE if cells else _SPOT_TISSUE))
        )
        free = np.flatnonzero(inside.all(axis=1) & (share <= _GLASS_TISSUE))
        self._check_room(len(on), len(free), name)
        off = np.sort(rng.choice(free, self.off_tissue, replace=False))

        xy = candidates[np.concatenate([on, off])]
        on_tissue = np.arange(len(xy)) < len(on)
        column, row = np.floor(xy).astype(np.intp).T
        region = np.where(on_tissue, tissue.region[row, column], len(REGIONS))
        radii = np.concatenate([tissue.radii_um[on], np.full(len(off), np.nan)]) if cells else None
        return Spots(xy, on_tissue, region, radii)

    def _check_room(self, n_on: int, n_free: int, name: str) -> None:
        if n_on == 0:
            height, width = (side * self.mpp for side in self.shape)
            raise ValueError(
                f"no spot of pitch_um={self.pitch_um:g} and tile_um={self.tile_um:g} fits the "
                f"tissue of section {name!r} in an image of {width:g} × {height:g} µm (x × y): "
                "choose a larger size_px= or a smaller pitch_um="
            )
        if n_free < self.off_tissue:
            raise ValueError(
                f"off_tissue={self.off_tissue}, but only {n_free} spots fit beside the tissue of "
                f"section {name!r}: choose fewer, or a larger size_px="
            )

    def recorded(self, xy: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """Positions in pixels as recorded, that is, misaligned."""
        if not any(self.misalignment_um) and not self.misalignment_deg:
            return xy.copy()
        affine = self.misalignment
        moved = (xy * self.mpp @ affine[:2, :2].T + affine[:2, 2]) / self.mpp
        n_outside = int((~((moved >= 0) & (moved <= self.shape[::-1])).all(axis=1)).sum())
        if n_outside:
            raise ValueError(
                f"the misalignment moves {n_outside} of {len(xy)} spots of section {name!r} out "
                "of the image: choose a smaller misalignment_um= or misalignment_deg="
            )
        return moved


def check_sections(n_sections: int, n_patients: int, n_genes: dict[str, int]) -> None:
    """Check the options that are not of one section."""
    _integer("n_sections", n_sections, at_least=1)
    _integer("n_patients", n_patients, at_least=1)
    if n_patients > n_sections:
        raise ValueError(
            f"n_patients={n_patients} is more than n_sections={n_sections}: every patient needs a "
            "section"
        )
    for kind, n in n_genes.items():
        _integer(f"n_{kind}", n, at_least=0)
    if sum(n_genes.values()) == 0:
        raise ValueError("n_morphology, n_neighborhood and n_null are all 0: there are no genes")


def _integer(name: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}: {value!r}")
