"""Super-resolution compared with interpolation of the spots' values.

Phantom: expression is planted on the morphology of 50 µm around any place. A model is trained on
spots 100 µm apart, and scored at positions every 25 µm of new sections.

HER2ST C2-C5, leave one section out: of the section left out, every second spot in both directions
is kept (400 µm apart), and the spots in between are predicted. Differences between measured and
predicted values of the spots that are kept are spread in three ways: constant, interpolated, and by
the processes of `tl.adapt`. `tl.superresolve` spreads those of ``match="table"`` less far, up to
half the distance between spots.

Xenium (200 cells of lung fibrosis, example data of DeepSpot): cells are binned to square spots of
40 µm. A model is trained on the bins of one half of the image, and scored at the cells of the other
half, for four halves and two places of the bins.

All scores are the mean PCC over genes. Intervals are from drawing cells with replacement.

    python benchmarks/superresolution.py [--only phantom her2st xenium] [--data PATH]
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _sections import SECTIONS, part, read_sections
from scipy.interpolate import griddata
from scipy.spatial import cKDTree

import stpredict as stp
from stpredict import tl
from stpredict.datasets._phantom_parts._truth import planted_at

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

LOCAL = Path(__file__).parents[1].parent / "shared" / "data"
#: Sections of the phantom for training and for scores.
N_TRAINING, N_NEW = 4, 2
#: µm per pixel of the Xenium image, which its files do not report; nuclei are about 7 µm wide then.
XENIUM_MPP = 0.25
BIN_UM = 40.0
#: Genes with the most counts; others are found in few of the 200 cells.
N_XENIUM_GENES = 40

#: Values at fine positions, or at spots, (n, n_genes), by name.
Values = dict[str, "NDArray[np.floating]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, default=LOCAL)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    print(f"{datetime.date.today()}, stpredict {stp.__version__}")
    for name in arguments.only:
        print(f"\n{name}")
        print(PARTS[name](arguments.data).round(3).to_string())


def phantom(data: Path) -> pd.DataFrame:
    """Scores at positions every 25 µm, section by section."""
    sdata = stp.datasets.phantom(N_TRAINING + N_NEW, tile_um=50.0)
    genes = [name for name in sdata["table"].var_names if name.startswith("morphology")]
    stp.pp.normalize(sdata)
    names = list(sdata.shapes)
    training = part(sdata, names[:N_TRAINING])
    stp.pp.embed(training, tile_um=50.0)
    model = tl.fit_ridge(training, genes=genes, context="spot")
    rows = {}
    for index in range(N_TRAINING, N_TRAINING + N_NEW):
        new = part(sdata, [names[index]])
        stp.pp.prepare(new, model)
        tl.predict(new, model)
        fine = superresolved(new, model, resolution_um=25.0)
        centers = next(iter(fine.values())).obsm["spatial"]
        truth = planted_at(sdata["table"], index, centers)
        values = {name: table.X for name, table in fine.items()}
        values |= interpolated(spot_values(new, genes), new["table"].obsm["spatial"], centers)
        inside = np.isfinite(values["predicted, cubic"]).all(axis=1)
        rows[names[index]] = {name: score(truth[inside], x[inside]) for name, x in values.items()}
    return pd.DataFrame(rows)


def her2st(data: Path) -> pd.DataFrame:
    """Scores at the spots between those that are kept, averaged over four choices of these."""
    sdata = read_sections(data / "her2st")
    stp.pp.embed(sdata)
    stp.pp.neighbors(sdata)
    columns = {}
    for held_out in SECTIONS:
        training = part(sdata, [name for name in SECTIONS if name != held_out])
        stp.pp.select_genes(training, n_top_genes=250)
        model = tl.fit_ridge(training, targets="svd")
        new = part(sdata, [held_out])
        tl.predict(new, model)
        centers = new["table"].obsm["spatial"]
        predicted = new["predicted"].X
        measured = dense(new["table"][:, list(model.genes)].layers["log1p"])
        grid = new["table"].obs["instance_id"].str.split("x", expand=True).astype(int).to_numpy()
        scores = []
        for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
            kept = (grid % 2 == place).all(axis=1)
            error = measured[kept] - predicted[kept]
            values = {"super-resolved": predicted[~kept]}
            for name, method in (("constant", "nearest"), ("interpolated", "linear")):
                shift = griddata(centers[kept], error, centers[~kept], method=method)
                values[f"super-resolved, difference of measured spots {name}"] = (
                    predicted[~kept] + shift
                )
            tl.adapt(new, model, measured=kept)
            values["super-resolved, corrected by measured spots"] = new["adapted"].X[~kept]
            spots = {"predicted": predicted[kept], "measured": measured[kept]}
            values |= interpolated(spots, centers[kept], centers[~kept])
            inside = np.isfinite(values["predicted, cubic"]).all(axis=1)
            truth = measured[~kept][inside]
            scores.append({name: score(truth, x[inside]) for name, x in values.items()})
        columns[held_out] = pd.DataFrame(scores).mean()
    return pd.DataFrame(columns)


def xenium(data: Path) -> pd.DataFrame:
    """Scores at the cells of the other half, and the difference from the best interpolation."""
    folder = data / "xenium_ncbi858"
    cells = ad.read_h5ad(folder / "NCBI858.h5ad")
    xy = cells.obs[["y_pixel", "x_pixel"]].to_numpy(dtype=float)  # x_pixel is the row
    counts = np.asarray(cells.to_df())
    truth = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    top = np.argsort(-counts.sum(axis=0), kind="stable")[:N_XENIUM_GENES]
    genes = cells.var_names[top].tolist()
    splits: list[tuple[NDArray[np.float64], Values]] = []
    for shift in np.array([(0, 0), (0.5, 0.5)]):
        sdata, bin_xy = binned(cells, counts, xy, shift, folder / "NCBI858.jpg")
        for axis in (0, 1):
            middle = np.median(xy[:, axis])
            for sign in (-1, 1):
                training = sign * (bin_xy[:, axis] - middle) > BIN_UM / XENIUM_MPP / 2
                testing = sign * (bin_xy[:, axis] - middle) < -BIN_UM / XENIUM_MPP / 2
                values, scored = xenium_split(sdata, training, testing, genes, xy)
                splits.append((truth[scored][:, top], values))
    return with_intervals(splits)


def binned(
    cells: ad.AnnData,
    counts: NDArray[np.floating],
    xy: NDArray[np.float64],
    shift: NDArray[np.float64],
    image: Path,
) -> tuple[SpatialData, NDArray[np.float64]]:
    """Square spots with the summed counts of their cells, and their centres."""
    side = BIN_UM / XENIUM_MPP
    columns, owner = np.unique(np.floor(xy / side - shift), axis=0, return_inverse=True)
    sums = np.zeros((len(columns), counts.shape[1]))
    np.add.at(sums, owner.ravel(), counts)
    centers = (columns + shift + 0.5) * side
    table = ad.AnnData(sums, var=cells.var[[]], obs=pd.DataFrame(index=map(str, range(len(sums)))))
    table.obsm["spatial"] = centers
    # circles of the area of a bin
    diameter = 2 * BIN_UM / np.sqrt(np.pi)
    sdata = stp.io.read_h5ad(
        table, image, section="lung", mpp=XENIUM_MPP, diameter_um=diameter, outside="drop"
    )
    stp.pp.normalize(sdata)
    stp.pp.embed(sdata, tile_um=BIN_UM)
    return sdata, sdata["table"].obsm["spatial"]


def xenium_split(
    sdata: SpatialData,
    training: NDArray[np.bool_],
    testing: NDArray[np.bool_],
    genes: list[str],
    xy: NDArray[np.float64],
) -> tuple[Values, NDArray[np.intp]]:
    """Values at the cells in the bins for testing, and the rows of these cells."""
    halves = []
    for rows in (training, testing):
        half = part(sdata, ["lung"])
        table = half["table"]
        del half.tables["table"]
        half["table"] = table[rows].copy()
        halves.append(half)
    model = tl.fit_ridge(halves[0], genes=genes, context="spot")
    new = halves[1]
    tl.predict(new, model)
    fine = superresolved(new, model, resolution_um=BIN_UM / 4)
    bins = new["table"].obsm["spatial"]
    inside = np.abs(xy[:, None] - bins).max(axis=2).min(axis=1) <= BIN_UM / XENIUM_MPP / 2
    scored = np.flatnonzero(inside)
    nearest = cKDTree(next(iter(fine.values())).obsm["spatial"]).query(xy[scored])[1]
    values = {name: table.X[nearest] for name, table in fine.items()}
    return values | interpolated(spot_values(new, genes), bins, xy[scored], fill=True), scored


def with_intervals(splits: list[tuple[NDArray[np.float64], Values]]) -> pd.DataFrame:
    """Mean score over splits, and 95 % intervals of it and of differences from interpolation."""
    rng = np.random.default_rng(0)
    draws: list[pd.Series] = []
    for draw in range(201):  # the first with all cells
        scores = []
        for truth, values in splits:
            n = len(truth)
            rows = np.arange(n) if draw == 0 else rng.integers(0, n, n)
            scores.append({name: score(truth[rows], x[rows]) for name, x in values.items()})
        draws.append(pd.DataFrame(scores).mean())
    table = pd.DataFrame(draws).T
    baselines = {
        name: "measured, linear" if name.startswith("measured") else "predicted, linear"
        for name in table.index
    }
    for name in ("matched to measured", "corrected by measured spots"):
        baselines[f"super-resolved, {name}"] = "measured, linear"
    difference = table - table.loc[list(baselines.values())].to_numpy()
    result = pd.DataFrame({"pcc": table[0]})
    for name, values in (("", table), ("difference ", difference)):
        if name:
            result["difference"] = values[0]
        result[f"{name}low"] = values.loc[:, 1:].quantile(0.025, axis=1)
        result[f"{name}high"] = values.loc[:, 1:].quantile(0.975, axis=1)
    return result


def superresolved(
    new: SpatialData, model: stp.models.Model, *, resolution_um: float
) -> dict[str, ad.AnnData]:
    """Tables at fine positions: not matched, matched, and corrected by measured spots."""
    names = {
        "super-resolved": None,
        "super-resolved, matched to predicted": "predicted",
        "super-resolved, matched to measured": "table",
        "super-resolved, corrected by measured spots": "denoised",
    }
    tl.denoise(new, model)
    for match in names.values():
        tl.superresolve(
            new, model, resolution_um=resolution_um, match=match, key_added=f"fine_{match}"
        )
    return {name: new[f"fine_{match}"] for name, match in names.items()}


def spot_values(new: SpatialData, genes: list[str]) -> Values:
    """Predicted and measured values of the spots."""
    measured = dense(new["table"][:, genes].layers["log1p"])
    return {"predicted": new["predicted"][:, genes].X, "measured": measured}


def interpolated(
    spots: Values,
    centers: NDArray[np.floating],
    places: NDArray[np.floating],
    *,
    fill: bool = False,
) -> Values:
    """Interpolated values of spots, NaN outside them, or filled with the nearest spot's."""
    values = {}
    for name, at_spots in spots.items():
        nearest = griddata(centers, at_spots, places, method="nearest")
        for method in ("nearest", "linear", "cubic"):
            fine = griddata(centers, at_spots, places, method=method)
            values[f"{name}, {method}"] = np.where(np.isnan(fine), nearest, fine) if fill else fine
    return values


def dense(values: object) -> NDArray[np.floating]:
    """A dense array."""
    return values.toarray() if sp.issparse(values) else np.asarray(values)


def score(truth: NDArray[np.floating], values: NDArray[np.floating]) -> float:
    """Mean PCC over genes."""
    return float(stp.metrics.pcc(truth, values).mean())


PARTS = {"phantom": phantom, "her2st": her2st, "xenium": xenium}


if __name__ == "__main__":
    main()
