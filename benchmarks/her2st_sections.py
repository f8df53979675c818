"""Leave-one-section-out over four sections of one HER2+ breast tumour (HER2ST C2-C5).

For every section in turn, everything is chosen and fitted on the other three: the genes, the
scaling, the epoch to stop at (on one of the three), ridge's alpha. The texture encoder learns
nothing. The sections are of one patient, so scores say how well a section of a tumour is predicted
from other sections of it, not from other patients.

    python benchmarks/her2st_sections.py [--directory PATH] [--contexts spot_neighbors …]
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import stpredict as stp

if TYPE_CHECKING:
    from spatialdata import SpatialData

SECTIONS = ["C2", "C3", "C4", "C5"]
LOCAL = Path(__file__).parents[1].parent / "shared" / "data" / "her2st"
CONTEXTS = ["spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--contexts", nargs="+", choices=CONTEXTS, default=["spot_neighbors"])
    parser.add_argument("--flavor", default="variance", help="of select_genes")
    parser.add_argument("--n-genes", type=int, default=250)
    parser.add_argument(
        "--stain", choices=["macenko", "vahadane", "reinhard"], help="normalise the stain first"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0

    sdata = stp.datasets.her2st(SECTIONS, directory=arguments.directory)
    stp.pp.filter_spots(sdata)
    stp.pp.normalize(sdata)
    if arguments.stain:
        stp.pp.normalize_stain(sdata, method=arguments.stain)
    started = time.perf_counter()
    stp.pp.embed(sdata, "texture")
    seconds = time.perf_counter() - started
    stp.pp.neighbors(sdata)
    table = sdata.tables["table"]
    print(
        f"{datetime.date.today()}, stpredict {stp.__version__}\n"
        f"HER2ST {', '.join(SECTIONS)} (one patient), {table.n_obs} spots with at least 100 "
        f"counts on tissue; leave one section out.\n"
        f"{arguments.n_genes} genes chosen on the training sections by "
        f"{arguments.flavor}; texture encoder, tiles of 112 µm and 3 × 3 sub-tiles (embedded in "
        f"{seconds:.0f} s); stain {arguments.stain or 'as scanned'}.\n"
        "Pearson per gene within the held-out section, mean over genes; constant genes count "
        "as 0.\n"
    )
    rows = {}
    for context in arguments.contexts:
        summaries, epochs = folds(sdata, context, arguments)
        rows[f"fit_deepspot, {context}"] = [s["model"]["mean PCC"] for s in summaries]
        print(f"{context}: chosen epochs {epochs}", flush=True)
        for name in ("ridge", "training mean", "shuffled"):
            label = f"{name} ({context})" if name == "shuffled" else name
            rows[label] = [s[name]["mean PCC"] for s in summaries]
    result = pd.DataFrame(rows, index=SECTIONS).T
    result["mean"] = result.mean(axis=1)
    print(f"\nmean PCC, by held-out section\n{result.round(3).to_string()}")


def folds(
    sdata: SpatialData, context: str, arguments: argparse.Namespace
) -> tuple[list[dict[str, dict[str, float]]], list[int]]:
    summaries, epochs = [], []
    for held_out in SECTIONS:
        train = part(sdata, [name for name in SECTIONS if name != held_out])
        test = part(sdata, [held_out])
        stp.pp.select_genes(train, n_top=arguments.n_genes, flavor=arguments.flavor)
        model = stp.tl.fit_deepspot(train, context=context, seed=arguments.seed)
        stp.tl.predict(test, model)
        summaries.append(stp.tl.evaluate(test).attrs["summary"])
        epochs.append(model.training["best_epoch"] + 1)
    return summaries, epochs


def part(sdata: SpatialData, names: list[str]) -> SpatialData:
    """Some of the sections."""
    elements = [element for name in names for element in (name, f"{name}_image")]
    return sdata.subset(elements, filter_tables=True)


if __name__ == "__main__":
    main()
