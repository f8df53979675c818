"""Realignment of the spots of four real sections (HER2ST C2-C5) and of a phantom, and what it pays.

Misalignments are planted: a shift of up to one spot pitch in any direction and a rotation of up to
3°, drawn at random. Each is then realigned, and its spots are compared with where the same call
leaves the section without the planted misalignment; on the phantom, with the truth. With --scores,
all sections are shifted by one pitch, each in a direction of its own, and the leave-one-section-out
scores are compared: as published, shifted, and realigned after the shift.

    python benchmarks/realignment.py [--directory PATH] [--runs 10] [--scores]
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from methods import LOCAL, SECTIONS, part

import stpredict as stp
from stpredict._sdata import _sections
from stpredict.alignment import motion_matrix, pitch_of
from stpredict.pp._realign._moved import move_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--scores", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    print(f"{datetime.date.today()}, stpredict {stp.__version__}, distances in spot pitches\n")
    rng = np.random.default_rng(arguments.seed)
    if arguments.scores:
        scores(arguments.directory, rng)
    else:
        planted(arguments.directory, arguments.runs, rng)


def planted(directory: Path | None, runs: int, rng: np.random.Generator) -> None:
    """Recovery of planted misalignments."""
    rows = []
    for name in SECTIONS:
        sdata = stp.datasets.her2st([name], directory=directory)
        published = centers(sdata)
        unshifted = stp.pp.realign(sdata, motion="rigid", copy=True)
        rows.append(measure(name, sdata, centers(unshifted), published, runs, rng))
    for seed in range(2):
        sdata = stp.datasets.phantom(size_px=2000, seed=seed)
        rows.append(measure(f"phantom {seed}", sdata, centers(sdata), centers(sdata), runs, rng))
    print(pd.DataFrame(rows).set_index("section").round(3).to_string())
    everything = np.concatenate([row["ends"] for row in ENDS if not row["phantom"]])
    print(
        f"\nreal sections, all spots and runs: median {np.median(everything):.3f}, 90th percentile "
        f"{np.quantile(everything, 0.9):.3f}"
    )


ENDS: list[dict[str, NDArray[np.float64] | bool]] = []


def measure(
    name: str,
    sdata: SpatialData,
    wanted: NDArray[np.float64],
    published: NDArray[np.float64],
    runs: int,
    rng: np.random.Generator,
) -> dict[str, str | float]:
    pitch = pitch_of(published)
    starts, ends, seconds, moved = [], [], [], 0
    for _ in range(runs):
        shift = pitch * np.sqrt(rng.uniform()) * direction(rng)
        misaligned = _sections.copy_of(sdata)
        misalign(misaligned, shift, angle=rng.uniform(-3, 3))
        starts.append(distance(centers(misaligned), published) / pitch)
        start = time.perf_counter()
        stp.pp.realign(misaligned, motion="rigid")
        seconds.append(time.perf_counter() - start)
        ends.append(distance(centers(misaligned), wanted) / pitch)
        records = misaligned.tables["table"].uns["stpredict"]["realign"]
        moved += sum(r["moved"] for r in records.values() if isinstance(r, dict))
    ENDS.append({"ends": np.concatenate(ends), "phantom": name.startswith("phantom")})
    return {
        "section": name,
        "unshifted moved by": float(np.median(distance(wanted, published)) / pitch),
        "planted, median": float(np.median(starts)),
        "left, median": float(np.median(ends)),
        "left, 90th percentile": float(np.quantile(ends, 0.9)),
        "moved, of runs": f"{moved}/{runs}",
        "seconds": float(np.mean(seconds)),
    }


def scores(directory: Path | None, rng: np.random.Generator) -> None:
    """Leave-one-section-out scores, as published, shifted, realigned."""
    sdata = stp.datasets.her2st(SECTIONS, directory=directory)
    stp.pp.filter_spots(sdata)
    stp.pp.normalize(sdata)
    shifted = _sections.copy_of(sdata)
    for section in _sections.sections(sdata):
        shift = pitch_of(section.centers_um) * direction(rng)
        misalign(shifted, shift, angle=0.0, name=section.name)
    realigned = stp.pp.realign(shifted, motion="rigid", copy=True)
    columns = {}
    for label, each in (("published", sdata), ("shifted", shifted), ("realigned", realigned)):
        stp.pp.embed(each, "texture", n_subtiles=1)
        stp.pp.neighbors(each)
        columns[label] = leave_one_out(each)
    table = pd.DataFrame(columns)
    print(f"mean PCC of fit_deepspot (250 genes), by held-out section\n{table.round(3)}\n")
    mean = table.mean()
    cost = mean["published"] - mean["shifted"]
    print(
        f"mean {mean.round(3).to_dict()}: the shift costs {cost:.3f}, realignment regains "
        f"{(mean['realigned'] - mean['shifted']) / cost:.0%} of it"
    )


def leave_one_out(sdata: SpatialData) -> dict[str, float]:
    found = {}
    for held_out in SECTIONS:
        train = part(sdata, [name for name in SECTIONS if name != held_out])
        test = part(sdata, [held_out])
        stp.pp.select_genes(train, n_top_genes=250, flavor="variance")
        stp.tl.predict(test, stp.tl.fit_deepspot(train))
        found[held_out] = stp.tl.evaluate(test).attrs["summary"]["model"]["mean PCC"]
    return found


def misalign(
    sdata: SpatialData, shift: NDArray[np.float64], *, angle: float, name: str | None = None
) -> None:
    for section in _sections.sections(sdata):
        if name in (None, section.name):
            middle = section.centers_um.mean(axis=0)
            move_shapes(sdata, section, motion_matrix(shift, angle=angle, center=middle))


def centers(sdata: SpatialData) -> NDArray[np.float64]:
    return np.concatenate([section.centers_um for section in _sections.sections(sdata)])


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(one - other, axis=1))


def direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


if __name__ == "__main__":
    main()
