"""Coverage of 90 % intervals on phantom sections that differ from those of training.

Ridge regression, with features standardised over training or within sections, is calibrated on six
sections and predicts three new ones: as they are, restained or blurred as a whole, and cut to some
kinds of tissue. A section is covered by the intervals that `tl.predict` writes; next to it is the
coverage that intervals would have without the rule for unfamiliar sections.

    python benchmarks/interval_shifts.py [--stain-variation 0.3]
"""

from __future__ import annotations

import argparse
import datetime
import warnings
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _sections import part
from intervals import restained
from scipy.ndimage import gaussian_filter
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import stpredict as stp
from stpredict import tl, uncertainty
from stpredict._sdata._spot_table import open_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialdata import SpatialData

    from stpredict.models import Model

DESIGN = {"mpp": 0.5, "pitch_um": 40.0, "n_morphology": 12, "n_neighborhood": 8, "n_null": 12}
TRAINING, NEW = [f"S{i}" for i in range(1, 7)], ["S7", "S8", "S9"]
#: Amounts of haematoxylin and eosin, σ of blur in µm, and kinds of tissue of the new sections.
STAINS = ((1.3, 0.75), (1.6, 0.5), (0.6, 1.4))
BLURS = (1.0, 2.0, 4.0)
KINDS = (
    ("tumour",),
    ("stroma",),
    ("immune",),
    ("epithelium",),
    ("tumour", "stroma"),
    ("immune", "epithelium"),
    ("tumour", "immune"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stain-variation", type=float, default=0.3)
    variation = parser.parse_args().stain_variation
    stp.settings.verbosity = 0
    warnings.simplefilter("ignore", UserWarning)  # of unfamiliar and of small sections
    training = prepared(6, 900, variation)
    new = part(prepared(9, 1300, variation), NEW)
    variants = {"as in training": {"as they are": new}, "restained": {}, "blurred": {}}
    for stain in STAINS:
        variants["restained"][f"{stain}"] = changed(new, partial(restained, stains=stain))
    for sigma in BLURS:
        variants["blurred"][f"{sigma} µm"] = changed(new, partial(blurred, sigma_px=sigma / 0.5))
    variants["other composition"] = {" + ".join(kinds): cut(new, kinds) for kinds in KINDS}
    print(f"{datetime.date.today()}, stpredict {stp.__version__}, {variation=}")
    for standardize in ("training", "section"):
        fit = partial(tl.fit_ridge, standardize=standardize)
        tl.cross_validate(training, {"ridge": fit})
        model = tl.calibrate(training, fit(training), method="ridge")
        rows = [
            {"kind": kind, "variant": name, **row}
            for kind, each in variants.items()
            for name, sdata in each.items()
            for row in covered(sdata, model)
        ]
        limit = model.calibration.section_rule.limit
        print(f"\nstandardize={standardize!r}, limit of familiarity {limit:.3f}")
        print(pd.DataFrame(rows).round(3).to_string(index=False))


def prepared(n_sections: int, size_px: int, variation: float) -> SpatialData:
    """Sections ready for training."""
    sdata = stp.datasets.phantom(n_sections, size_px=size_px, stain_variation=variation, **DESIGN)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, genes=sdata["table"].var_names.tolist())
    stp.pp.embed(sdata, tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    return sdata


def changed(sdata: SpatialData, change: Callable[[np.ndarray], np.ndarray]) -> SpatialData:
    """Sections with changed pixels (3, y, x), embedded again."""
    changed_sdata = part(sdata, NEW)
    for name, image in dict(changed_sdata.images).items():
        changed_sdata.images[name] = Image2DModel.parse(
            change(image["scale0"]["image"].to_numpy()),
            dims=("c", "y", "x"),
            transformations=get_transformation(image, get_all=True),
            scale_factors=[2],
        )
    stp.pp.embed(changed_sdata, tile_um=40, n_subtiles=1)
    return changed_sdata


def blurred(pixels: np.ndarray, *, sigma_px: float) -> np.ndarray:
    """Pixels out of focus."""
    return gaussian_filter(pixels.astype(float), (0, sigma_px, sigma_px)).round().astype(np.uint8)


def cut(sdata: SpatialData, kinds: tuple[str, ...]) -> SpatialData:
    """The spots of some kinds of tissue."""
    spots = open_table(sdata)
    return spots.subset(np.flatnonzero(spots.table.obs["region_truth"].isin(kinds))).sdata


def covered(sdata: SpatialData, model: Model) -> list[dict[str, object]]:
    """Coverage of each section, NaN without intervals."""
    tl.predict(sdata, model)
    table, spots = sdata["predicted"], open_table(sdata)
    measured = spots.table[:, list(model.genes)].layers["log1p"].toarray()
    plain = model.calibration.intervals.around(np.asarray(table.X))
    written = (table.layers["lower"], table.layers["upper"])
    results = []
    for section, rows in spots.section_rows.items():
        coverages = [
            uncertainty.coverage(*(values[rows] for values in (measured, *bounds))).mean()
            for bounds in (plain, written)
        ]
        familiarity = table.obs["familiarity"].iloc[rows].median()
        results.append(
            {
                "section": section,
                "spots": len(rows),
                "familiarity": familiarity,
                "without rule": coverages[0],
                "coverage": coverages[1],
            }
        )
    return results


if __name__ == "__main__":
    main()
