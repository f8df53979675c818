"""What stain normalisation does to embeddings: phantom sections drawn with different stains.

Two measures, with the texture encoder, on raw images and after each method:

- the distance between sections: of each feature, the difference of two sections' means in units of
  the deviation within sections; median over features, mean over all pairs of sections. The tissue
  differs too, so that the same sections, all drawn with one stain, tell the part that stays;
- cross-section PCC: ridge fitted on all sections but one, evaluated on that one, in turn;
  Pearson per morphology gene, mean over genes and sections.

    python benchmarks/stain.py [--seeds 3] [--sections 4]
"""

from __future__ import annotations

import argparse
import datetime
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import stpredict as stp
from stpredict.models._ridge import Ridge
from stpredict.targets import Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

METHODS = ["macenko", "vahadane", "reinhard"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sections", type=int, default=4)
    parser.add_argument("--size-px", type=int, default=2400)
    parser.add_argument("--pitch-um", type=float, default=60.0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0

    rows = []
    for seed in range(arguments.seeds):
        for variation in (0.0, 1.0):
            for method in ["raw", *arguments.methods]:
                sdata = phantom(arguments, seed, variation)
                if method != "raw":
                    stp.pp.normalize_stain(sdata, method=method)
                stp.pp.embed(sdata, "texture", tile_um=arguments.pitch_um, n_subtiles=1)
                rows.append(
                    {
                        "method": method,
                        "variation": variation,
                        "seed": seed,
                        "distance": distance(sdata),
                        "PCC": cross_section_pcc(sdata),
                    }
                )
    result = pd.DataFrame(rows)
    print(
        f"{datetime.date.today()}, stpredict {stp.__version__}\n"
        f"{arguments.sections} phantom sections of {arguments.size_px} px, "
        f"{arguments.seeds} seeds; texture encoder, tiles of {arguments.pitch_um:g} µm; "
        "stain_variation 1 is stained differently, 0 alike.\n"
    )
    table = result.pivot_table(
        index="method", columns="variation", values=["distance", "PCC"], sort=False
    )
    print(table.round(3).to_string())
    raw = result[result["method"] == "raw"].set_index(["variation", "seed"])["distance"]
    share = result.set_index(["variation", "seed"]).assign(raw=raw)
    share = share[share.index.get_level_values("variation") == 1.0]
    print("\ndistance as a share of the raw images', each seed")
    share = share.assign(share=share["distance"] / share["raw"]).reset_index()
    print(share.pivot_table(index="method", columns="seed", values="share", sort=False).round(2))


def phantom(arguments: argparse.Namespace, seed: int, variation: float) -> SpatialData:
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


def distance(sdata: SpatialData) -> float:
    embedded, sections = of_section(sdata)
    within = np.sqrt(np.mean([embedded[rows].var(axis=0) for rows in sections], axis=0))
    varies = within > 1e-6
    means = [embedded[rows].mean(axis=0)[varies] / within[varies] for rows in sections]
    pairs = itertools.combinations(means, 2)
    return float(np.mean([np.median(np.abs(one - other)) for one, other in pairs]))


def cross_section_pcc(sdata: SpatialData) -> float:
    embedded, sections = of_section(sdata)
    table = sdata.tables["table"]
    planted = (table.var["planted"] == "morphology").to_numpy()
    measured = table.layers["log1p"][:, planted].toarray()
    regions = table.obs["region"].to_numpy().astype(str)
    scores = []
    for test in sections:
        train = ~test
        inputs, targets = Standard.fit(embedded[train]), Standard.fit(measured[train])
        ridge = Ridge.fit(
            inputs.transform(embedded[train]), targets.transform(measured[train]), regions[train]
        )
        predicted = targets.inverse(ridge.predict(inputs.transform(embedded[test])))
        scores.append(np.mean(stp.metrics.pcc(measured[test], predicted)))
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
