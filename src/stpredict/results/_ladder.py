"""One method under several splits of the same data: what each leak is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd

from stpredict.results._comparison import Comparison, compare

#: Names of the rungs, from the leakiest to the strictest.
RANDOM_SPOTS, BLOCKS, SECTIONS, PATIENTS = "random_spots", "blocks", "sections", "patients"


@dataclass(frozen=True)
class Rung:
    """One way to split the data.

    Attributes
    ----------
    name
        ``"random_spots"``, ``"blocks"``, ``"sections"`` or ``"patients"``, which are left out.
    shared
        What training and test spots have in common, in words; empty for an honest split.
    n_folds, n_training
        Number of folds, and mean number of training spots of a fold.
    """

    name: str
    shared: tuple[str, ...]
    n_folds: int
    n_training: float

    @property
    def leaky(self) -> bool:
        """Whether training and test spots share anything."""
        return bool(self.shared)

    @property
    def label(self) -> str:
        """Name with what is shared, such as ``"blocks (LEAKY: the section, the patient)"``."""
        return self.name + (f" (LEAKY: {', '.join(self.shared)})" if self.shared else "")


@dataclass(frozen=True, eq=False)
class SplitLadder:
    """Scores of one method under splits of the same data; made by `tl.split_ladder`.

    Attributes
    ----------
    table
        PCC of each gene in each block of each section, with a column per rung and an index of
        ``group`` (patient, section or block), ``section``, ``block`` and ``gene``. Values that are
        missing in one rung are left out of all.
    rungs
        Splits, from the leakiest to the strictest.
    impossible
        Reasons, by name of the rungs that the data do not allow.
    protocol
        How the scores were obtained, in words.
    """

    table: pd.DataFrame
    rungs: tuple[Rung, ...]
    impossible: dict[str, str]
    protocol: str = field(repr=False)

    @property
    def leaky(self) -> bool:
        """Whether even the strictest rung that the data allow shares something."""
        return self.rungs[-1].leaky

    def summary(self) -> pd.DataFrame:
        """One row per rung by its label: mean PCC over genes and blocks, then over sections.

        Also ``leaky``, ``n_folds`` and ``n_training``, the mean number of training spots.
        """
        pcc = self.by_section().mean()
        rows = {
            rung.label: {
                "pcc": pcc[rung.name],
                "leaky": rung.leaky,
                "n_folds": rung.n_folds,
                "n_training": rung.n_training,
            }
            for rung in self.rungs
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")

    def by_section(self) -> pd.DataFrame:
        """Mean PCC of each section, (n_sections, n_rungs)."""
        return self.table.groupby(level="section", sort=False).mean()

    def prices(self, *, seed: int = 0) -> dict[str, Comparison]:
        """Difference of each rung to the next one, by what only the leakier one shares.

        Intervals and tests are over groups: patients if there are several, else sections, else
        blocks of the only section.
        """
        return {
            " and ".join(what for what in leakier.shared if what not in stricter.shared): compare(
                self.table,
                leakier.name,
                stricter.name,
                metric="pcc",
                leaky=leakier.leaky,
                seed=seed,
            )
            for leakier, stricter in pairwise(self.rungs)
        }

    def __repr__(self) -> str:
        prices = [f"sharing {what}: {price}" for what, price in self.prices().items()]
        reasons = [f"{name}: not possible, {reason}" for name, reason in self.impossible.items()]
        return "\n".join([self.protocol, self.summary().round(3).to_string(), *prices, *reasons])
