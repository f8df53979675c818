"""Other patients, simulated: PCC lost when a section is stained, scanned or composed otherwise.

HER2ST C2 to C5, leave one section out: models are trained on three sections as scanned, and predict
the fourth as scanned and after each shift of the whole section (`_shifts.py`): amounts and colours
of the dyes, scanner, defocus, few pixels, compression, and µm per pixel recorded wrong. Shifts of
colour are also predicted after stain normalisation, by models of normalised sections; the reference
is the average stain of the four sections as scanned. Tiles are shifted after they are read, and
blurred, coarsened and compressed field by field.

Phantom: models of five patients, whose levels of expression differ, predict three others, which are
stained differently, or hold other tissue: mostly immune cells and epithelium, after training on
mostly tumour and stroma. The reference for the latter is training on patients of the same tissue.
All are repeated after stain normalisation to the training patients.

    python benchmarks/shifts.py [phantom] [her2st] [--directory PATH] [--folder EMBEDDINGS]
                                [--networks 1] [--left-out C2 C3 C4 C5]
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import _shift_variants
import _shifts
import numpy as np
import pandas as pd
import torch
from _sections import FIELDS_UM

import stpredict as stp
from stpredict import metrics, tl
from stpredict._sdata._spot_table import SpotTable, open_table
from stpredict.pp._stain._fit import SectionStain, average_stain

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from squidpy.experimental.im import StainReference

    from stpredict.models import Model

    #: Embeddings of a section by the name of the shift.
    Embeddings = dict[str, NDArray[np.float32]]

SECTIONS = ["C2", "C3", "C4", "C5"]
LOCAL = Path(__file__).parents[1].parent / "shared" / "data" / "her2st"
DATA = ["phantom", "her2st"]
NONE, NORMALISED = "as scanned", "normalised, "
#: Slots of the embeddings of one field and of three.
ONE, FIELDS = "X_texture", "X_fields"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", help="phantom, her2st or both", default=DATA)
    parser.add_argument("--directory", default=LOCAL if LOCAL.is_dir() else None)
    parser.add_argument("--folder", type=Path, help="folder for embeddings of shifted sections")
    parser.add_argument("--networks", type=int, default=1, help="networks of the new default")
    parser.add_argument("--left-out", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    stp.settings.verbosity = 0
    print(f"{datetime.date.today()}, stpredict {stp.__version__}, torch {torch.__version__}\n")
    models = all_models(arguments.networks)
    if "phantom" in arguments.data:
        show("Phantom", pd.DataFrame(phantom_scores(models)))
    if "her2st" in arguments.data:
        her2st(models, arguments)


def all_models(n_networks: int) -> dict[str, Callable[[SpatialData], Model]]:
    """Methods to compare, the default before features were standardised per section first."""
    published = tl.DeepSpotNetwork(n_hidden=512, n_phi=10, n_networks=1)
    new = tl.DeepSpotNetwork(n_networks=n_networks)
    svd = partial(tl.fit_ridge, targets="svd")
    return {
        "old default": partial(
            tl.fit_deepspot, embedding=ONE, standardize="training", network=published
        ),
        "new default": partial(
            tl.fit_deepspot, embedding=FIELDS, standardize="section", network=new
        ),
        "new, training rows": partial(
            tl.fit_deepspot, embedding=FIELDS, standardize="training", network=new
        ),
        "ridge": partial(svd, embedding=ONE),
        "ridge, section": partial(svd, embedding=FIELDS, standardize="section"),
    }


def store(sdata: SpatialData, values: NDArray[np.float32]) -> None:
    """Write embeddings of three fields, and of the first, to the table."""
    first = values[:, : values.shape[1] // len(FIELDS_UM)]
    for slot, array in ((ONE, first), (FIELDS, values)):
        sdata["table"].obsm[slot] = np.ascontiguousarray(array)
        stp.pp.register_embedding(sdata, slot, encoder="texture", tile_um=FIELDS_UM[0])


def score(new: SpatialData, model: Model) -> dict[str, float]:
    """Mean over genes of PCC and RMSE of a section."""
    tl.predict(new, model)
    measured = new["table"][:, list(model.genes)].layers["log1p"].toarray()
    predicted = np.asarray(new["predicted"].X)
    return {
        "pcc": float(metrics.pcc(measured, predicted).mean()),
        "rmse": float(metrics.rmse(measured, predicted).mean()),
    }


# HER2ST


def her2st(
    models: dict[str, Callable[[SpatialData], Model]], arguments: argparse.Namespace
) -> None:
    """Show the scores of models, and of variants within training sections."""
    sdata = open_sections(SECTIONS, arguments.directory)
    stp.pp.normalize(sdata)
    stp.pp.neighbors(sdata)
    spots, embeddings = open_table(sdata), embed_all(sdata, arguments)
    show("HER2ST", pd.DataFrame(her2st_scores(models, spots, embeddings, arguments.left_out)))
    if set(arguments.left_out) == set(SECTIONS):
        shifts = [name for name in embeddings[SECTIONS[0]] if not is_normalised(name)]
        variants = pd.DataFrame(_shift_variants.scores(spots, embeddings, shifts))
        table = variants.pivot_table(index="method", columns="shift", values="pcc")
        table = table.reindex(index=variants["method"].unique(), columns=shifts)
        table["mean of shifts"] = table[shifts[1:]].mean(axis=1)
        print(f"Variants within training sections, PCC\n\n{table.round(4).to_string()}")


def her2st_scores(
    models: dict[str, Callable[[SpatialData], Model]],
    spots: SpotTable,
    embeddings: dict[str, Embeddings],
    sections: list[str],
) -> Iterator[dict[str, object]]:
    """Scores of every model on every section left out, as scanned and shifted."""
    for left_out in sections:
        for prefix in ("", NORMALISED):
            scanned = [embeddings[name][prefix + NONE] for name in SECTIONS]
            embedded = np.empty((spots.table.n_obs, scanned[0].shape[1]), dtype=np.float32)
            for name, values in zip(SECTIONS, scanned, strict=True):
                embedded[spots.section_rows[name]] = values
            store(spots.sdata, embedded)
            is_new = spots.section_of_row == left_out
            train, new = (spots.subset(np.flatnonzero(rows)).sdata for rows in (~is_new, is_new))
            stp.pp.select_genes(train, n_top_genes=250, flavor="variance")
            shifts = [name for name in embeddings[left_out] if is_normalised(name) == bool(prefix)]
            for method, fit in models.items():
                model = fit(train)
                for shift in shifts:
                    store(new, embeddings[left_out][shift])
                    yield {"section": left_out, "shift": shift, "method": method} | score(
                        new, model
                    )


def is_normalised(shift: str) -> bool:
    return shift.startswith(NORMALISED)


def open_sections(names: list[str], directory: str | Path | None) -> SpatialData:
    sdata = stp.datasets.her2st(names, directory=directory)
    stp.pp.filter_spots(sdata)
    return sdata


def embed_all(sdata: SpatialData, arguments: argparse.Namespace) -> dict[str, Embeddings]:
    """Embeddings of every section as scanned, and of those left out after every shift."""
    parts = {name: sdata.subset([name, f"{name}_image"], filter_tables=True) for name in SECTIONS}
    stains = {name: _shifts.fit_stain(part) for name, part in parts.items()}
    reference = average_stain([each.stain for each in stains.values()])
    embed = partial(embed_section, reference=reference, arguments=arguments)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        return dict(zip(SECTIONS, pool.map(embed, stains, stains.values()), strict=True))


def embed_section(
    name: str, stain: SectionStain, *, reference: StainReference, arguments: argparse.Namespace
) -> Embeddings:
    """Embeddings of a section as scanned, after every shift, and after normalising its stain."""
    file = arguments.folder / f"{name}.npz" if arguments.folder else None
    embeddings: Embeddings = dict(np.load(file)) if file and file.is_file() else {}

    def add(key: str, compute: Callable[[], NDArray[np.float32]]) -> None:
        if key not in embeddings:
            embeddings[key] = compute()
            if file:
                np.savez(file, **embeddings)

    stp.settings.verbosity = 0
    torch.set_num_threads(1)
    sdata = open_sections([name], arguments.directory)
    tiles = _shifts.read(sdata)
    to_reference = partial(_shifts.normalise, reference=reference)
    colours = _shifts.colour_shifts(stain)
    add(NONE, lambda: _shifts.embed(tiles))
    add(NORMALISED + NONE, lambda: _shifts.embed(tiles, partial(to_reference, stain=stain)))
    if name not in arguments.left_out:
        return embeddings
    for key, shift in (colours | _shifts.resolution_shifts()).items():
        add(key, partial(_shifts.embed, tiles, shift))
    for key, error in _shifts.MPP_ERRORS.items():
        add(key, lambda error=error: _shifts.embed(_shifts.read(sdata, mpp_error=error)))
    for key, shift in colours.items():
        own = partial(to_reference, stain=_shifts.fit_stain(sdata, shift))
        add(NORMALISED + key, partial(_shifts.embed, tiles, shift, own))
    return embeddings


# Phantom

#: Share of the spots of every kind of tissue that patients have.
COMPOSITIONS = {
    "tumour and stroma": {"tumour": 1.0, "stroma": 1.0, "immune": 0.1, "epithelium": 0.1},
    "immune and epithelium": {"tumour": 0.1, "stroma": 0.1, "immune": 1.0, "epithelium": 1.0},
}
SAME_TISSUE = "as scanned, same tissue"
N_TRAINING, N_NEW = 5, 3


def phantom_scores(
    models: dict[str, Callable[[SpatialData], Model]],
) -> Iterator[dict[str, object]]:
    """Scores of every model on patients of another stain or composition."""
    for prefix in ("", NORMALISED):
        raw, restained = (phantom(variation, prefix == NORMALISED) for variation in (0.0, 2.0))
        is_new = np.isin(raw.section_of_row, raw.section_names[N_TRAINING:])
        other, same = (composed(raw, shares) for shares in COMPOSITIONS.values())
        everything = np.ones_like(is_new)
        # by the spots that models are trained on: the tests, with images and tested spots
        experiments = [
            (everything, {NONE: (raw, everything), "other stain": (restained, everything)}),
            (same, {SAME_TISSUE: (raw, same)}),
            (other, {"other tissue": (raw, same), "other tissue and stain": (restained, same)}),
        ]
        for trained, tests in experiments:
            train = raw.subset(np.flatnonzero(trained & ~is_new)).sdata
            for method, fit in models.items():
                model = fit(train)
                for shift, (spots, tested) in tests.items():
                    for name in raw.section_names[N_TRAINING:]:
                        rows = np.flatnonzero(tested & (raw.section_of_row == name))
                        scores = score(spots.subset(rows).sdata, model)
                        yield {"section": name, "shift": prefix + shift, "method": method} | scores


def phantom(variation: float, normalised: bool) -> SpotTable:
    """Patients with all slots; only the stain of the images depends on its variation."""
    pitch_um = 40.0
    make = partial(
        stp.datasets.phantom,
        N_TRAINING + N_NEW,
        size_px=1000,
        mpp=0.5,
        pitch_um=pitch_um,
        n_null=2,
        donor_variation=1.0,
    )
    sdata = make(stain_variation=variation)
    if normalised:
        as_scanned = make(stain_variation=0.0)
        training = open_table(as_scanned).section_names[:N_TRAINING]
        stp.pp.normalize_stain(as_scanned, reference=training)
        reference = as_scanned["table"].uns["stpredict"]["normalize_stain"]["reference"]
        stp.pp.normalize_stain(sdata, reference=reference)
    stp.pp.normalize(sdata)
    planted = sdata["table"].var["planted"]
    genes = planted.index[planted.isin(["morphology", "neighborhood"])]
    stp.pp.select_genes(sdata, genes=list(genes))
    stp.pp.neighbors(sdata)
    stp.pp.embed(sdata, tile_um=[pitch_um, 2 * pitch_um, 4 * pitch_um])
    store(sdata, sdata["table"].obsm[ONE])
    return open_table(sdata)


def composed(spots: SpotTable, shares: dict[str, float]) -> NDArray[np.bool_]:
    """A random part of the spots of every kind of tissue."""
    probability = spots.table.obs["region_truth"].astype(str).map(shares).to_numpy(dtype=float)
    return np.random.default_rng(0).random(len(probability)) < probability


# Results


def show(title: str, scores: pd.DataFrame) -> None:
    """Print PCC, PCC lost and RMSE of every method and shift."""
    order = {"index": scores["shift"].unique(), "columns": scores["method"].unique()}
    pcc, rmse = (
        scores.pivot_table(index="shift", columns="method", values=name).reindex(**order)
        for name in ("pcc", "rmse")
    )
    reference = pd.DataFrame({shift: pcc.loc[reference_of(shift)] for shift in pcc.index}).T
    lost = (reference - pcc)[[shift != reference_of(shift) for shift in pcc.index]]
    lost.loc["mean"] = lost.mean()
    lost["new / old"] = lost["new default"] / lost["old default"]
    for what, values in (("PCC", pcc), ("PCC lost", lost), ("RMSE", rmse)):
        print(f"{title}, {what}\n\n{values.round(3).to_string()}\n", flush=True)


def reference_of(shift: str) -> str:
    """The same sections without the shift."""
    reference = SAME_TISSUE if "tissue" in shift else NONE
    return NORMALISED + reference if is_normalised(shift) else reference


if __name__ == "__main__":
    main()
