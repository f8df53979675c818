"""Coverage of prediction intervals on new groups, and familiarity of restained slides.

Phantom: models are fitted, cross-validated and calibrated on some sections, and predict the others.
HER2ST C2-C5, leave one section out: every section is predicted by a model that was fitted,
cross-validated and calibrated on the other three, with genes selected on them. The sections are of
one patient. Coverage and mean width are per section, averaged over genes.

A slide is then restained with more haematoxylin and less eosin, once moderately and once strongly,
to test whether the change lowers its familiarity.

    python benchmarks/intervals.py [--directory PATH] [--level 0.9] [--only ridge trees]
"""

from __future__ import annotations

import argparse
import datetime
import warnings
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from _sections import LOCAL, SECTIONS, part, read_sections
from skimage.color import hed2rgb, rgb2hed
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import stpredict as stp
from stpredict import tl, uncertainty

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spatialdata import SpatialData

    from stpredict.models import Model

#: Factors of haematoxylin and eosin of the restained slides.
RESTAINED = ((1.3, 0.75), (1.6, 0.5))
#: Number of sections of the phantom, and how many of them are for training.
N_SECTIONS, N_TRAINING = 12, 6

METHODS: dict[str, Callable[[SpatialData], Model]] = {
    "ridge": tl.fit_ridge,
    "ridge_svd": partial(tl.fit_ridge, targets="svd"),
    "trees_svd": partial(tl.fit_trees, targets="svd"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--level", type=float, default=0.9)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    methods = {name: METHODS[name] for name in arguments.only}
    print(
        f"{datetime.date.today()}, stpredict {stp.__version__}. Intervals at "
        f"{arguments.level:.0%}; coverage in %, mean width in log(1 + counts per 10,000), median "
        "familiarity.\n"
    )
    phantom(methods, arguments.level)
    her2st(methods, arguments.level, arguments.directory)


def phantom(methods: dict[str, Callable[[SpatialData], Model]], level: float) -> None:
    """Train on half of the sections, and predict the other half."""
    sdata = stp.datasets.phantom(N_SECTIONS, size_px=1000, mpp=0.5, pitch_um=40.0)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, genes=sdata.tables["table"].var_names.tolist())
    stp.pp.embed(sdata, tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    names = list(sdata.shapes)
    training, new = part(sdata, names[:N_TRAINING]), part(sdata, names[N_TRAINING:])
    print(f"Phantom: trained on {N_TRAINING} sections, predicted {N_SECTIONS - N_TRAINING} others.")
    for name, model in calibrated(training, methods, level).items():
        show(name, model, predict(new, model))
    show_restained(part(new, [names[-1]]), model, tile_um=40)


def her2st(
    methods: dict[str, Callable[[SpatialData], Model]], level: float, directory: str | None
) -> None:
    """Predict every section in turn, after training on the other three."""
    sdata = read_sections(directory)
    stp.pp.embed(sdata, "texture", n_subtiles=3)
    stp.pp.neighbors(sdata)
    print(f"\nHER2ST {', '.join(SECTIONS)} (one patient), leave one section out, 250 genes.")
    for held_out in SECTIONS:
        training = part(sdata, [name for name in SECTIONS if name != held_out])
        stp.pp.select_genes(training, n_top_genes=250)
        new = part(sdata, [held_out])
        for name, model in calibrated(training, methods, level).items():
            show(name, model, predict(new, model))
    show_restained(new, model, tile_um=112)


def calibrated(
    training: SpatialData, methods: dict[str, Callable[[SpatialData], Model]], level: float
) -> dict[str, Model]:
    """Models of all sections, calibrated by a cross-validation on them."""
    tl.cross_validate(training, methods)
    return {
        name: tl.calibrate(training, fit(training), method=name, level=level)
        for name, fit in methods.items()
    }


def predict(new: SpatialData, model: Model) -> list[tuple[str, float, float, float]]:
    """Section, coverage, mean width and median familiarity."""
    tl.predict(new, model)
    table = new.tables["predicted"]
    available = model.calibration.intervals.available
    values = new.tables["table"][:, list(model.genes)].layers["log1p"]
    measured = np.asarray(values.toarray() if hasattr(values, "toarray") else values)[:, available]
    # predict writes no intervals in unfamiliar sections, whose coverage is measured here
    bounds = model.calibration.intervals.around(np.asarray(table.X))
    lower, upper = (bound[:, available] for bound in bounds)
    results = []
    for section, rows in table.obs.groupby("region", observed=True).indices.items():
        shares = uncertainty.coverage(measured[rows], lower[rows], upper[rows])
        width = (upper - lower)[rows].mean()
        familiarity = table.obs["familiarity"].iloc[rows].median()
        results.append((str(section), 100 * shares.mean(), width, familiarity))
    return results


def show(name: str, model: Model, results: Sequence[tuple[str, float, float, float]]) -> None:
    """Print new sections, their mean, and the coverage that calibration reported."""
    calibration = model.calibration
    sections = "  ".join(f"{s} {c:.1f} (width {w:.2f}, fam {f:.2f})" for s, c, w, f in results)
    mean = np.mean([row[1] for row in results])
    print(
        f"{name:20} {sections}  | mean {mean:.1f}; calibration reported "
        f"{100 * calibration.mean_coverage:.1f} on groups left out; "
        f"{calibration.reliable.sum()} of {len(model.genes)} genes reliable",
        flush=True,
    )


def show_restained(sdata: SpatialData, model: Model, *, tile_um: float) -> None:
    """Change the stain, embed again, and print familiarity, coverage and whether it warned."""
    (name,) = sdata.images
    image = sdata.images[name]["scale0"]["image"]
    transformations = get_transformation(sdata.images[name], get_all=True)
    for stains in RESTAINED:
        other = image.data.rechunk({0: 3}).map_blocks(restained, stains, dtype=np.uint8)
        sdata.images[name] = Image2DModel.parse(
            other, dims=("c", "y", "x"), transformations=transformations, scale_factors=[2, 2]
        )
        stp.pp.embed(sdata, tile_um=tile_um, n_subtiles=model.recipe.embed.n_subtiles)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            show(f"stain × {stains[0]:g}, {stains[1]:g}", model, predict(sdata, model))
        warned = any("look unlike" in str(warning.message) for warning in caught)
        print(f"{'':20} {'warned' if warned else 'not warned'}", flush=True)


def restained(pixels: np.ndarray, stains: tuple[float, float]) -> np.ndarray:
    """Pixels (3, y, x) with other amounts of haematoxylin and eosin."""
    changed = rgb2hed(pixels.transpose(1, 2, 0)) * [*stains, 1.0]
    return (255 * hed2rgb(changed)).round().astype(np.uint8).transpose(2, 0, 1)


if __name__ == "__main__":
    main()
