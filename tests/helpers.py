"""Prepared sections, methods on them and examples of the README, which several tests share."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from matplotlib_scalebar.scalebar import ScaleBar

import stpredict as stp
from stpredict._sdata._spot_table import open_table

ridge = functools.partial(stp.tl.fit_ridge, embedding="X_colour", context="spot_neighbors")
factors = functools.partial(ridge, targets="svd", n_factors=2)
deepspot = functools.partial(
    stp.tl.fit_deepspot,
    embedding="X_colour",
    context="spot",
    network=stp.tl.DeepSpotNetwork(n_hidden=16, n_phi=1, n_rho=2, n_networks=1),
    schedule=stp.tl.Schedule(max_epochs=3),
)


def colour(tiles):
    """Mean and standard deviation of each colour of a tile."""
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


def scale_bars(ax):
    """Scale bars in axes."""
    return [artist for artist in ax.artists if isinstance(artist, ScaleBar)]


def only(sdata, names):
    """A copy of some sections."""
    spots = open_table(sdata)
    return spots.subset(np.flatnonzero(np.isin(spots.section_of_row, names))).sdata


def prepared_phantom(
    n_sections, design, *, select, encoder=colour, n_subtiles=1, normalize_stain=False
):
    """Sections of a phantom with 40 µm between spots, ready for training."""
    sdata = stp.datasets.phantom(n_sections, **{"mpp": 0.5, "pitch_um": 40.0, **design})
    if normalize_stain:
        stp.pp.normalize_stain(sdata)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, **select)
    stp.pp.embed(sdata, encoder, tile_um=40, n_subtiles=n_subtiles)
    stp.pp.neighbors(sdata)
    return sdata


def run_readme_example(after):
    """Run the first block of Python after a text of the README, and return its names."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code = readme.split(after)[1].split("```python")[1].split("```")[0]
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def two_of_three(genes, *, size_px):
    """Three sections with embeddings and selected genes, and a copy of the first two."""
    design = {"n_morphology": 3, "n_neighborhood": 1, "n_null": 3, "size_px": size_px}
    sdata = prepared_phantom(3, design, select={"genes": genes}, encoder="texture")
    return sdata, only(sdata, ["S1", "S2"])
