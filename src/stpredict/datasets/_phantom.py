"""Synthetic H&E sections whose gene expression is planted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from stpredict import _keys
from stpredict._sdata import _provenance
from stpredict.datasets import _phantom_counts as _counts
from stpredict.datasets._phantom_design import Design, check_sections
from stpredict.datasets._phantom_fields import REGIONS
from stpredict.datasets._phantom_image import draw_tissue
from stpredict.io._assemble import assemble_section
from stpredict.io._concat import concat

if TYPE_CHECKING:
    from spatialdata import SpatialData

# Independent streams of random numbers of a section, so that one option leaves the rest alone.
_STREAMS = ("tissue", "stain", "spots", "expression", "counts", "ambient")


def phantom(
    n_sections: int = 1,
    *,
    size_px: int | tuple[int, int] = 1500,
    mpp: float = 1.0,
    spots: Literal["hexagonal", "square", "cells"] = "hexagonal",
    pitch_um: float = 100.0,
    tile_um: float | None = None,
    n_morphology: int = 20,
    n_neighborhood: int = 20,
    n_null: int = 40,
    counts_per_spot: float = 5000.0,
    stain_variation: float = 0.0,
    off_tissue: int = 0,
    misalignment_um: tuple[float, float] = (0.0, 0.0),
    misalignment_deg: float = 0.0,
    n_patients: int | None = None,
    seed: int = 0,
) -> SpatialData:
    """Draw synthetic H&E sections and plant gene expression on what was drawn.

    Four kinds of tissue differ in the number, size and shape of their nuclei and in eosin; inside
    them a patchwork of the size of a spot varies the same properties. They are measured in each
    spot's tile as drawn, and standardised: `nuclear_density`, `nuclear_size`, `eosin`. Genes are of
    three kinds, all with negative-binomial counts:

    morphology
        The log expectation is a weighted sum of the spot's own morphology.
    neighborhood
        The same of the morphology of the neighbouring spots (half-way between mean and maximum),
        as far as the spot's own morphology does not tell it.
    null
        Varies as much, with nothing.

    All sections share the genes' weights; each has its own tissue. Section ``"S2"`` is the same
    whatever `n_sections`.

    Parameters
    ----------
    n_sections
        Number of sections, named ``"S1"``, ``"S2"``, ….
    size_px
        Side of the image in pixels, or its height and width.
    mpp
        µm per pixel.
    spots
        ``"hexagonal"`` (six neighbours) or ``"square"`` (eight) grid, or ``"cells"``: one per
        nucleus, with the six nearest as neighbours.
    pitch_um
        Distance between neighbouring spots in µm; also the grain of the tissue's patchwork, which
        is all it means for cells. Spots are 0.55 of it wide, cells 8 µm.
    tile_um
        Side in µm of the tile in which morphology is measured; of a cell, size is that of its own
        nucleus. Default: the pitch, for cells half of it.
    n_morphology, n_neighborhood, n_null
        Number of genes of each kind.
    counts_per_spot
        Mean total of a spot's or cell's counts.
    stain_variation
        0: one stain for all sections; 1: strong differences in hue and intensity between them.
    off_tissue
        Number of spots per section put beside the tissue. They catch 3 % of the counts, in the
        section's mean composition.
    misalignment_um, misalignment_deg
        Shift (x, y) in µm of the recorded positions from the true ones, after a rotation around
        the image's centre in degrees, from x towards y.
    n_patients
        Sections are dealt to ``"P1"``, ``"P2"``, … in turn. Default: each its own patient.
    seed
        Same seed, same data.

    Returns
    -------
    SpatialData
        Image, circles and table of every section, as the readers make them, and in
        ``tables["table"]`` the truth:

        - ``layers["expected"]``: float32, (n_obs, n_genes), the planted expectation in the unit of
          ``layers["log1p"]`` (log1p of counts per 10,000);
        - ``obsm["truth_morphology"]``, ``obsm["truth_neighborhood"]``: float32, (n_obs, 3), what
          the genes depend on (neighborhood is 0 off the tissue);
        - ``obsm["spatial_true"]``: float64, (n_obs, 2), true positions x, y in pixels;
        - ``obs["on_tissue"]``: bool; ``obs["region_truth"]``: kind of tissue or ``"glass"``;
          ``obs["patient"]``;
        - ``var["planted"]``: ``"morphology"``, ``"neighborhood"`` or ``"null"``; ``var["share"]``:
          mean share of the counts; ``var["weight_<morphology>"]``: the three weights;
        - ``uns["stpredict"]["phantom"]``: parameters; ``["misalignment"][<section>]`` is the affine
          (3, 3) from true to recorded positions in µm.

    Raises
    ------
    ValueError
        If an option is out of range, no spot or not all off-tissue spots fit the image, or the
        misalignment moves spots out of it.

    Notes
    -----
    The defaults are Visium's geometry and fit those of :func:`stpredict.pp.embed`. An embedding
    whose tiles are about `tile_um` wide sees what was measured; much wider tiles show the
    neighbours too, and blur the spot. Many small spots cost least, for instance ``mpp=0.5,
    pitch_um=40`` with ``pp.embed(..., tile_um=40, n_subtiles=1)``.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800, n_morphology=3, n_neighborhood=3, n_null=4)
    >>> sorted(sdata.shapes)
    ['S1', 'S2']
    >>> table = sdata.tables["table"]
    >>> table.n_vars, table.layers["expected"].shape == table.shape
    (10, True)
    >>> table.var["planted"].value_counts()["null"].item()
    4
    """
    n_patients = n_sections if n_patients is None else n_patients
    n_genes = {"morphology": n_morphology, "neighborhood": n_neighborhood, "null": n_null}
    check_sections(n_sections, n_patients, n_genes)
    design = Design(
        size_px=size_px,
        mpp=mpp,
        layout=spots,
        pitch_um=pitch_um,
        tile_um=pitch_um / (2 if spots == "cells" else 1) if tile_um is None else tile_um,
        counts_per_spot=counts_per_spot,
        stain_variation=stain_variation,
        off_tissue=off_tissue,
        misalignment_um=misalignment_um,
        misalignment_deg=misalignment_deg,
        seed=seed,
    )
    program = _counts.gene_program(np.random.default_rng([seed, 0]), n_genes)
    sdata = concat(
        [
            _section(design, program, index, patient=f"P{index % n_patients + 1}")
            for index in range(n_sections)
        ]
    )
    table = sdata.tables[_keys.TABLE]
    table.obs[_keys.PATIENT] = pd.Categorical(
        table.obs[_keys.PATIENT], [f"P{i + 1}" for i in range(n_patients)]
    )
    _provenance.record(
        table,
        "phantom",
        n_sections=int(n_sections),
        n_patients=int(n_patients),
        morphology=np.array(_counts.MORPHOLOGY),
        misalignment=dict.fromkeys(sdata.shapes, design.misalignment),
        **design.parameters(),
    )
    return sdata


def _section(design: Design, program: _counts.Program, index: int, *, patient: str) -> SpatialData:
    name = f"S{index + 1}"
    streams = {
        stream: np.random.default_rng([design.seed, index + 1, k])
        for k, stream in enumerate(_STREAMS)
    }
    tissue = draw_tissue(
        streams["tissue"],
        streams["stain"],
        shape=design.shape,
        mpp=design.mpp,
        grain_um=design.pitch_um,
        stain_variation=design.stain_variation,
    )
    spots = design.place(streams["spots"], tissue, name)
    on = spots.on_tissue
    own = _counts.measure(
        tissue, spots.xy, mpp=design.mpp, tile_um=design.tile_um, own_radii_um=spots.radii_um
    )
    around = np.zeros_like(own)
    around[on] = _counts.surroundings(own[on], spots.xy[on], design.layout, design.pitch_px)
    shares = _counts.expected_shares(streams["expression"], program, own[on], around[on])
    # Beside the tissue, the mean of all RNA, diluted.
    ambient = np.broadcast_to(shares.mean(axis=0), (int((~on).sum()), shares.shape[1]))
    depth = design.counts_per_spot
    counts = [
        _counts.sample_counts(streams["counts"], shares, depth),
        _counts.sample_counts(streams["ambient"], ambient, depth * _counts.AMBIENT),
    ]
    sdata = assemble_section(
        name,
        image=tissue.image,
        counts=np.vstack(counts),
        obs_names=[f"{i:05d}" for i in range(len(on))],
        var_names=program.genes,
        positions=design.recorded(spots.xy, name),
        mpp=design.mpp,
        diameter_um=design.diameter_um,
        patient=patient,
        obs=pd.DataFrame(
            {
                "on_tissue": on,
                "region_truth": pd.Categorical.from_codes(spots.region, [*REGIONS, "glass"]),
            }
        ),
        var=_gene_columns(program),
    )
    table = sdata.tables[_keys.TABLE]
    table.layers["expected"] = _counts.log1p_cp10k(np.vstack([shares, ambient]))
    table.obsm["truth_morphology"] = own.astype(np.float32)
    table.obsm["truth_neighborhood"] = around.astype(np.float32)
    table.obsm["spatial_true"] = spots.xy
    return sdata


def _gene_columns(program: _counts.Program) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "planted": pd.Categorical(program.planted, _counts.PLANTED),
        "share": program.share,
    }
    for name, weight in zip(_counts.MORPHOLOGY, program.weights.T, strict=True):
        columns[f"weight_{name}"] = weight
    return pd.DataFrame(columns)
