"""Realignment of the spots of four real sections (HER2ST C2-C5) and of a phantom, and its benefit.

Misalignments are planted: a shift of up to one spot pitch in any direction and a rotation of up to
3°, drawn at random. The section is then realigned, and its spots are compared with the result of
the same call on the section without the planted misalignment; on the phantom, with the truth. With
--scores, all sections are shifted by one pitch, each in its own direction, and the
leave-one-section-out scores are compared: as published, shifted, and realigned after the shift.

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
from _sections import LOCAL, SECTIONS, read_sections

import stpredict as stp
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.alignment import motion_matrix, pitch_of
from stpredict.pp._realign._realign import move_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        compare_scores(arguments.directory, rng)
    else:
        recover_planted(arguments.directory, arguments.runs, rng)


def recover_planted(directory: Path | None, runs: int, rng: np.random.Generator) -> None:
    """Print how well planted misalignments are recovered."""
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
    expected: NDArray[np.float64],
    published: NDArray[np.float64],
    runs: int,
    rng: np.random.Generator,
) -> dict[str, str | float]:
    pitch = pitch_of(published)
    starts, ends, seconds, moved = [], [], [], 0
    for _ in range(runs):
        shift = pitch * np.sqrt(rng.uniform()) * direction(rng)
        misaligned = copy_of(sdata)
        misalign(misaligned, shift, angle=rng.uniform(-3, 3))
        starts.append(distance(centers(misaligned), published) / pitch)
        start = time.perf_counter()
        stp.pp.realign(misaligned, motion="rigid")
        seconds.append(time.perf_counter() - start)
        ends.append(distance(centers(misaligned), expected) / pitch)
        records = misaligned.tables["table"].uns["stpredict"]["realign"]
        moved += sum(r["moved"] for r in records.values() if isinstance(r, dict))
    ENDS.append({"ends": np.concatenate(ends), "phantom": name.startswith("phantom")})
    return {
        "section": name,
        "unshifted moved by": float(np.median(distance(expected, published)) / pitch),
        "planted, median": float(np.median(starts)),
        "remaining, median": float(np.median(ends)),
        "remaining, 90th percentile": float(np.quantile(ends, 0.9)),
        "moved, of runs": f"{moved}/{runs}",
        "seconds": float(np.mean(seconds)),
    }


def compare_scores(directory: Path | None, rng: np.random.Generator) -> None:
    """Print leave-one-section-out scores as published, shifted, and realigned."""
    sdata = read_sections(directory)
    shifted = copy_of(sdata)
    for section in open_table(sdata).sections:
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
        f"mean {mean.round(3).to_dict()}: the shift costs {cost:.3f}, realignment recovers "
        f"{(mean['realigned'] - mean['shifted']) / cost:.0%} of it"
    )


def leave_one_out(sdata: SpatialData) -> dict[str, float]:
    """Mean PCC of each section, predicted after training on the others."""
    means = {}
    for held_out in SECTIONS:
        train = part(sdata, [name for name in SECTIONS if name != held_out])
        test = part(sdata, [held_out])
        stp.pp.select_genes(train, n_top_genes=250, flavor="variance")
        stp.tl.predict(test, stp.tl.fit_deepspot(train))
        means[held_out] = stp.tl.evaluate(test).summary().loc["predicted", "pcc"]
    return means


def part(sdata: SpatialData, names: Sequence[str]) -> SpatialData:
    """A copy of some sections."""
    spots = open_table(sdata)
    return spots.subset(np.flatnonzero(np.isin(spots.section_of_row, names))).sdata


def misalign(
    sdata: SpatialData, shift: NDArray[np.float64], *, angle: float, name: str | None = None
) -> None:
    for section in open_table(sdata).sections:
        if name in (None, section.name):
            middle = section.centers_um.mean(axis=0)
            move_shapes(sdata, section, motion_matrix(shift, angle=angle, center=middle))


def centers(sdata: SpatialData) -> NDArray[np.float64]:
    return np.concatenate([section.centers_um for section in open_table(sdata).sections])


def distance(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(points - others, axis=1))


def direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


if __name__ == "__main__":
    main()
