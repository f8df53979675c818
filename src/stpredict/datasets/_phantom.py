"""Synthetic H&E sections with planted gene expression."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from spatialdata import SpatialData

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata import _provenance
from stpredict.datasets._phantom_parts import _expression, _spots
from stpredict.datasets._phantom_parts._design import Design
from stpredict.datasets._phantom_parts._donors import donor_effects
from stpredict.datasets._phantom_parts._draw_tissue import draw_tissue
from stpredict.datasets._phantom_parts._maps import REGIONS
from stpredict.io._concat import concat
from stpredict.io._shared._assemble import assemble_section

_MOST_GENES = 100_000  # of each kind, so that the table fits in memory


@checked
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
    donor_variation: float = 0.0,
    seed: int = 0,
) -> SpatialData:
    """Draw synthetic H&E sections and plant gene expression on their morphology.

    Four kinds of tissue differ in the number, size and shape of their nuclei and in eosin. Inside
    them, patches of the size of a spot vary the same properties. `nuclear_density`, `nuclear_size`
    and `eosin` are measured in each spot's tile as drawn, and standardised. Genes are of three
    kinds, all with negative-binomial counts. The log expectation of a *morphology* gene is a
    weighted sum of the spot's own morphology; of a *neighborhood* gene, of the part of the
    neighbouring spots' morphology (the average of mean and maximum) that the spot's own does not
    explain; of a *null* gene, random. Sections share the weights; each has its own tissue.

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
        Distance between neighbouring spots in µm, which is also the size of the tissue's patches;
        for cells it is only the latter. Spots are 0.55 pitches wide, cells 8 µm.
    tile_um
        Side in µm of the tile in which morphology is measured. Default: the pitch, for cells half.
    n_morphology, n_neighborhood, n_null
        Number of genes of each kind.
    counts_per_spot
        Mean total counts of a spot or cell.
    stain_variation
        Strength of differences in hue and intensity between sections; 0: none, 1: strong.
    off_tissue
        Number of spots per section off the tissue, with 3 % of the counts in mean composition.
    misalignment_um, misalignment_deg
        Shift (x, y) in µm of the recorded positions from the true ones, after a rotation around
        the image's centre in degrees, from x towards y.
    n_patients
        Number of patients ``"P1"``, …, assigned to sections in turn. Default: one per section.
    donor_variation
        Strength of differences in expression between patients; 0: none, 1: as between patients with
        breast cancer. Above 0, *donor* genes are added: sex-linked, HLA and immunoglobulin genes.
    seed
        Random seed.

    Returns
    -------
    SpatialData
        Image, circles and table of every section, as from the readers, and in
        ``tables["table"]`` the truth:

        - ``layers["expected"]``: float32, (n_obs, n_genes), the planted expectation in the unit of
          ``layers["log1p"]`` (log1p of counts per 10,000);
        - ``obsm["truth_morphology"]``, ``obsm["truth_neighborhood"]``: float32, (n_obs, 3), what
          the genes depend on; ``obsm["spatial_true"]``: float64, (n_obs, 2), x, y in pixels;
        - ``obs["on_tissue"]``: bool; ``obs["region_truth"]``: kind of tissue or ``"glass"``;
        - ``var["planted"]``: kind of gene; ``var["share"]``: mean share of the counts;
          ``var["weight_<morphology>"]``: the three weights;
        - ``uns["stpredict"]["phantom"]``: parameters; ``["misalignment"][<section>]`` is the affine
          (3, 3) from true to recorded positions in µm.

    Raises
    ------
    ValueError
        If an option is out of range, or spots do not fit the image.

    Notes
    -----
    The defaults have Visium's geometry and suit those of :func:`stpredict.pp.embed`; embed tiles
    of about `tile_um`, because wider ones include the neighbours. For many spots on a small image
    use ``mpp=0.5, pitch_um=40`` with ``pp.embed(..., tile_um=40, n_subtiles=1)``.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2, size_px=800, n_morphology=3, n_neighborhood=3, n_null=4)
    >>> list(sdata.shapes), sdata.tables["table"].n_vars
    (['S1', 'S2'], 10)
    """
    n_patients = n_sections if n_patients is None else n_patients
    n_genes = {"morphology": n_morphology, "neighborhood": n_neighborhood, "null": n_null}
    _check_sections(n_sections, n_patients, n_genes)
    design = Design(
        size_px=size_px,
        mpp=mpp,
        spots=spots,
        pitch_um=pitch_um,
        tile_um=pitch_um / (2 if spots == "cells" else 1) if tile_um is None else tile_um,
        counts_per_spot=counts_per_spot,
        stain_variation=stain_variation,
        off_tissue=off_tissue,
        misalignment_um=misalignment_um,
        misalignment_deg=misalignment_deg,
        donor_variation=donor_variation,
        seed=seed,
    )
    program = _expression.gene_program(np.random.default_rng([seed, 0]), n_genes)
    if donor_variation > 0:
        program = _expression.with_donor_genes(program)
    patients = [f"P{i % n_patients + 1}" for i in range(n_sections)]
    sdata = concat([_section(design, program, i, i % n_patients) for i in range(n_sections)])
    table = sdata.tables["table"]
    table.obs[_keys.PATIENT] = pd.Categorical(table.obs[_keys.PATIENT], patients[:n_patients])
    _provenance.record(
        table,
        "phantom",
        n_sections=int(n_sections),
        n_patients=int(n_patients),
        morphology=np.array(_spots.MORPHOLOGY),
        misalignment=dict.fromkeys(sdata.shapes, design.misalignment),
        **design.parameters(),
    )
    return sdata


def _check_sections(n_sections: int, n_patients: int, n_genes: dict[str, int]) -> None:
    _validate.whole_number("n_sections", n_sections)
    _validate.whole_number("n_patients", n_patients)
    if n_patients > n_sections:
        raise ValueError(f"{n_patients=} is more than {n_sections=}, every patient needs a section")
    for kind, n in n_genes.items():
        _validate.whole_number(f"n_{kind}", n, at_least=0, at_most=_MOST_GENES)
    if sum(n_genes.values()) == 0:
        raise ValueError("no genes: n_morphology, n_neighborhood and n_null are all 0")


def _section(
    design: Design, program: _expression.GeneProgram, index: int, patient: int
) -> SpatialData:
    section, rng = f"S{index + 1}", design.random_streams(index)
    tissue = draw_tissue(rng["tissue"], rng["stain"], design)
    spots = _spots.place_spots(design, rng["spots"], tissue, section)
    on = spots.on_tissue
    morphology = _spots.in_tiles(design, tissue, spots)
    neighborhood = np.zeros_like(morphology)
    neighborhood[on] = _spots.in_neighborhood(design, morphology[on], spots.xy[on])
    sources = {"morphology": morphology[on], "neighborhood": neighborhood[on]}
    effects = None
    if design.donor_variation > 0:
        strength = design.donor_variation
        effects = donor_effects(program.genes, strength=strength, seed=design.seed, patient=patient)
    shares = _expression.expected_shares(rng["expression"], program, sources, effects)
    # off the tissue: diluted RNA of the whole section
    ambient = np.broadcast_to(shares.mean(axis=0), (int((~on).sum()), shares.shape[1]))
    depth = design.counts_per_spot
    counts = [
        _expression.sample_counts(rng["counts"], shares, depth),
        _expression.sample_counts(rng["ambient"], ambient, depth * _expression.AMBIENT),
    ]
    names = [f"{i:05d}" for i in range(len(on))]
    regions = pd.Categorical.from_codes(spots.region, [*REGIONS, "glass"])
    sdata = assemble_section(
        section,
        image=tissue.image,
        counts=np.vstack(counts),
        positions=_spots.recorded_positions(design, spots.xy, section),
        mpp=design.mpp,
        diameter_um=design.diameter_um,
        patient=f"P{patient + 1}",
        obs=pd.DataFrame({"on_tissue": on, "region_truth": regions}, index=names),
        var=program.columns(),
        check_mpp=False,
    )
    table = sdata.tables["table"]
    expected = np.vstack([shares, ambient])
    expected = np.log1p(1e4 * expected / expected.sum(axis=1, keepdims=True))  # as layers["log1p"]
    table.layers["expected"] = expected.astype(np.float32)
    table.obsm["truth_morphology"] = morphology.astype(np.float32)
    table.obsm["truth_neighborhood"] = neighborhood.astype(np.float32)
    table.obsm["spatial_true"] = spots.xy
    return sdata
