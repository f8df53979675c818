"""Effect of stain normalisation on embeddings: phantom sections drawn with different stains.

Measured with the texture encoder, on raw images and after each method:

- the distance between sections: for each feature, the difference of two sections' means divided by
  the standard deviation within sections; median over features, mean over all pairs of sections. Its
  part that is due to differences in tissue is the distance between the same sections drawn with one
  stain;
- the distance between each section drawn with its own stain and with the phantom's common one, in
  the same units, which is due to stain only;
- cross-section PCC: ridge fitted on all sections but one, evaluated on that one, in turn; Pearson
  correlation of each morphology gene, mean over genes and sections.

    python benchmarks/stain.py [--seeds 3] [--sections 4] [--methods macenko]
"""

from __future__ import annotations

import argparse
import datetime
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import stpredict as stp
from stpredict._sdata._spot_table import open_table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

METHODS = ["macenko", "vahadane", "reinhard"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sections", type=int, default=4)
    parser.add_argument("--size-px", type=int, default=1200)
    parser.add_argument("--pitch-um", type=float, default=40.0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0

    rows = []
    for seed in range(arguments.seeds):
        for method in ["raw", *arguments.methods]:
            common = phantom(arguments, seed, variation=0.0)
            varied = phantom(arguments, seed, variation=1.0)
            if method != "raw":
                stp.pp.normalize_stain(common, method=method)
                reference = common.tables["table"].uns["stpredict"]["normalize_stain"]["reference"]
                stp.pp.normalize_stain(varied, method=method, reference=reference)
            for sdata in (common, varied):
                stp.pp.embed(sdata, "texture", tile_um=arguments.pitch_um, n_subtiles=1)
            rows.append(
                {
                    "method": method,
                    "seed": seed,
                    "between": between(varied),
                    "between, one stain": between(common),
                    "own": from_common(varied, common),
                    "PCC": cross_section_pcc(varied),
                    "PCC, one stain": cross_section_pcc(common),
                }
            )
            print(rows[-1], flush=True)
    result = pd.DataFrame(rows)
    print(
        f"\n{datetime.date.today()}, stpredict {stp.__version__}\n"
        f"{arguments.sections} phantom sections of {arguments.size_px} px, "
        f"{arguments.seeds} seeds; texture encoder, tiles of {arguments.pitch_um:g} µm.\n"
        "Distances between the sections and from each section in the common stain ('own'); PCC "
        "across sections.\n"
    )
    print(result.drop(columns="seed").groupby("method", sort=False).mean().round(3).to_string())


def phantom(arguments: argparse.Namespace, seed: int, *, variation: float) -> SpatialData:
    sdata = stp.datasets.phantom(
        arguments.sections,
        size_px=arguments.size_px,
        mpp=0.5,
        pitch_um=arguments.pitch_um,
        stain_variation=variation,
        n_neighborhood=2,
        n_null=2,
        seed=seed,
    )
    stp.pp.normalize(sdata)
    return sdata


def of_section(sdata: SpatialData) -> tuple[NDArray[np.float32], list[NDArray[np.bool_]]]:
    table = sdata.tables["table"]
    regions = table.obs["region"].to_numpy()
    return table.obsm["X_texture"], [regions == name for name in sorted(set(regions))]


def within(sdata: SpatialData) -> NDArray[np.float32]:
    """Standard deviation of each feature within sections."""
    embedded, sections = of_section(sdata)
    deviation = np.sqrt(np.mean([embedded[rows].var(axis=0) for rows in sections], axis=0))
    return np.where(deviation > 1e-6, deviation, np.nan)


def means(sdata: SpatialData) -> list[NDArray[np.float32]]:
    embedded, sections = of_section(sdata)
    return [embedded[rows].mean(axis=0) for rows in sections]


def between(sdata: SpatialData) -> float:
    pairs = itertools.combinations(means(sdata), 2)
    unit = within(sdata)
    return float(np.mean([np.nanmedian(np.abs(one - other) / unit) for one, other in pairs]))


def from_common(sdata: SpatialData, common: SpatialData) -> float:
    pairs = zip(means(sdata), means(common), strict=True)
    unit = within(common)
    return float(np.mean([np.nanmedian(np.abs(one - other) / unit) for one, other in pairs]))


def cross_section_pcc(sdata: SpatialData) -> float:
    spots = open_table(sdata)
    genes = spots.table.var_names[spots.table.var["planted"] == "morphology"].tolist()
    scores = []
    for name in spots.section_names:
        is_test = spots.section_of_row == name
        train, test = (spots.subset(np.flatnonzero(rows)).sdata for rows in (~is_test, is_test))
        model = stp.tl.fit_ridge(train, context="spot", genes=genes)
        stp.tl.predict(test, model)
        measured = test.tables["table"][:, genes].layers["log1p"]
        scores.append(np.mean(stp.metrics.pcc(measured, test.tables["predicted"].X)))
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
