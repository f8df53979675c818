"""Find sections of one donor that are labelled as two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._log import info
from stpredict._sdata._spot_table import open_table
from stpredict.tl._audit._donors import compare_sections, donors_of_sections, summary

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


@checked
def audit_donors(
    sdata: SpatialData,
    *,
    groups: str | None = None,
    seed: int = 0,
    table_name: str = "table",
) -> pd.DataFrame:
    """Find sections of one donor that are labelled as two, before a split is trusted.

    A model that is tested on another section of a training patient scores too high. Sections are
    compared by their counts: how much two differ, relative to the two halves of one section, and
    how similar is what distinguishes them from all others. Axes along which spots vary within
    sections are removed first, so that the share of each tissue does not decide.

    The thresholds come from all pairs of the 36 sections of HER2ST (8 patients, one platform). On
    other tissues and platforms, read the distribution of all pairs. Sections that were processed
    together may be similar for that reason; the stain is reported, and decides nothing.

    Parameters
    ----------
    sdata
        Sections with counts in ``X``, and their images.
    groups
        Column of ``obs`` with the donors, one for each section. Default: ``"patient"`` where there
        are several, else the sections.
    seed
        Random seed of the permutations.
    table_name
        Name of the table with the counts.

    Returns
    -------
    pandas.DataFrame
        One row for each pair of sections:

        - ``section_1``, ``section_2``, ``donor_1``, ``donor_2``: sections and their labels;
        - ``sex_1``, ``sex_2``: ``"female"`` or ``"male"`` by *XIST* and genes of the Y chromosome,
          ``""`` where fewer than 10 counts show it;
        - ``profile_difference``, ``immune_difference``: mean squared difference of the 3,000 most
          expressed genes and of HLA and immunoglobulin genes, 1 for two halves of one section; NaN
          for sets of fewer than 5 genes;
        - ``profile_similarity``, ``immune_similarity``: correlation of the differences from the
          mean of all donors, 1 for two halves of one section; NaN for fewer than 3 labels;
        - ``stain_difference``: the same of the plane that the colours of the two dyes span;
        - ``p``: p value of the similarities over permutations of the genes, adjusted for the pairs
          with two labels (Holm); NaN for the others;
        - ``verdict``: ``"one donor"`` (both similarities are at least 0.5, ``p`` is at most 0.05,
          and the sex does not differ), ``"alike"`` (the pair differs no more than sections of one
          patient, but is not clearly closer than the other pairs), ``"different"`` (both
          differences are larger, or the sex differs), or ``"unclear"``.

    Raises
    ------
    KeyError
        If the table or the column of donors does not exist.
    ValueError
        If there is a single section, a section has several donors, fewer than 20 spots with counts,
        or rows without a donor, ``X`` has no valid counts, or fewer than 5 genes are expressed.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(4, size_px=800, n_patients=3, donor_variation=1.0)
    >>> sdata["table"].obs["patient"].cat.categories.tolist()
    ['P1', 'P2', 'P3']
    >>> pairs = stp.tl.audit_donors(sdata, groups="region")  # as if of four donors
    >>> pairs.loc[pairs["verdict"] == "one donor", ["section_1", "section_2"]].values.tolist()
    [['S1', 'S4']]
    """
    _validate.seed(seed)
    spots = open_table(sdata, table_name)
    labels = donors_of_sections(spots, groups)
    if len(labels) < 2:
        raise ValueError("an audit of donors compares sections, but there is only one")
    pairs = compare_sections(spots, labels, seed=seed)
    info(summary(pairs))
    return pairs
