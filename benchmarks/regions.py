"""False discoveries of reliable genes and programmes, in spots and in larger regions.

Each phantom has four sections. Their planted morphology, with noise, takes the place of an
embedding, so that no tile is read. Half of the genes without a link to morphology are replaced by
smooth random maps, which are the harder null: they are as smooth as predictions. Ridge regression
is cross-validated, leaving out one section at a time. The false discovery rate is the share of
reliable rows whose gene has no link to morphology, mean over phantoms. The score of a programme
subtracts other genes, which may be linked to morphology. False programmes are therefore counted in
a second set of phantoms, in which no gene is linked: every reliable row is a false discovery.

    python benchmarks/regions.py [--n-phantoms 20]
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

import stpredict as stp
from stpredict._sdata._spot_table import open_table

DESIGN = {"mpp": 0.5, "pitch_um": 40.0, "size_px": 1100, "n_neighborhood": 0}
#: Genes that are linked to morphology, and that are not.
LINKED, UNLINKED = {"n_morphology": 8, "n_null": 32}, {"n_morphology": 0, "n_null": 40}
#: Counts per spot, of which fewer hide more genes in single spots.
COUNTS = 400.0
#: Genes of a programme.
N_MEMBERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-phantoms", type=int, default=20)
    n_phantoms = parser.parse_args().n_phantoms
    stp.settings.verbosity = 0
    print(f"{datetime.date.today()}, stpredict {stp.__version__}, {n_phantoms} phantoms each.")
    for title, genes in (("8 of 40 genes linked", LINKED), ("no gene linked", UNLINKED)):
        tables = [discoveries(seed, genes).assign(phantom=seed) for seed in range(n_phantoms)]
        table = pd.concat(tables)
        false = false_shares(table, n_phantoms)
        print(
            f"\n{title}: false discoveries {false.mean():.1%}, most in a phantom {false.max():.1%}"
        )
        columns = {"reliable": "mean", "pcc": "mean", "coverage": "mean", "width": "mean"}
        print(table.groupby(["kind", "scale", "is_null"]).agg(columns).round(3).to_string())


def false_shares(table: pd.DataFrame, n_phantoms: int) -> pd.Series:
    """Share of false discoveries of each phantom; 0 without discoveries."""
    shares = table[table["reliable"]].groupby("phantom")["is_null"].mean()
    return shares.reindex(range(n_phantoms), fill_value=0.0)


def discoveries(seed: int, genes: dict[str, int]) -> pd.DataFrame:
    """Reliability in a phantom, and whether each row has no link to morphology."""
    sdata = stp.datasets.phantom(4, seed=seed, counts_per_spot=COUNTS, **DESIGN, **genes)
    stp.pp.normalize(sdata)
    random = np.random.default_rng(seed)
    spots = open_table(sdata)
    table = spots.table
    is_null = (table.var["planted"] == "null").to_numpy()
    values = table.layers["log1p"].toarray()
    smooth = np.flatnonzero(is_null)[::2]
    for rows in spots.section_rows.values():
        values[np.ix_(rows, smooth)] = smooth_maps(spots.positions_um[rows], len(smooth), random)
    table.layers["log1p"] = values.astype(np.float32)
    morphology = table.obsm["truth_morphology"]
    noise = random.normal(size=morphology.shape)
    table.obsm["X_planted"] = (morphology + 0.5 * noise).astype(np.float32)
    stp.pp.register_embedding(sdata, "X_planted", encoder="planted", tile_um=40.0)
    stp.pp.select_genes(sdata, genes=table.var_names.tolist())
    methods = {"ridge": lambda x: stp.tl.fit_ridge(x, embedding="X_planted", context="spot")}
    stp.tl.cross_validate(sdata, methods)
    sets = programs(table.var_names[~is_null]) | programs(table.var_names[is_null])
    with tempfile.TemporaryDirectory() as folder:
        gmt = Path(folder) / "sets.gmt"
        lines = [f"{name}\t\t" + "\t".join(members) + "\n" for name, members in sets.items()]
        gmt.write_text("".join(lines))
        result = stp.tl.reliability_by_scale(sdata, gene_sets=gmt, method="ridge")
    first = result["name"].map(lambda name: sets.get(name, [name])[0])
    result["is_null"] = first.str.startswith("null")
    # linked by the genes that are subtracted
    is_linked = (result["kind"] == "programme") & result["is_null"] & bool(genes["n_morphology"])
    return result[~is_linked]


def smooth_maps(positions: np.ndarray, n_maps: int, random: np.random.Generator) -> np.ndarray:
    """Random maps (n, n_maps) with correlation lengths of one to four pitches, and noise."""
    distances = cdist(positions, positions)
    maps = []
    for length in random.uniform(40, 160, n_maps):
        covariance = np.exp(-0.5 * (distances / length) ** 2) + 0.3 * np.eye(len(positions))
        maps.append(np.linalg.cholesky(covariance) @ random.normal(size=len(positions)))
    return 2 + 0.5 * np.column_stack(maps)


def programs(genes: pd.Index) -> dict[str, list[str]]:
    """Programmes of successive genes."""
    parts = [list(genes[i : i + N_MEMBERS]) for i in range(0, len(genes), N_MEMBERS)]
    return {f"{part[0]}_to_{part[-1]}": part for part in parts}


if __name__ == "__main__":
    main()
