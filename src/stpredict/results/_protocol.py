"""How scores were obtained, as data and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stpredict import _validate


@dataclass(frozen=True)
class Protocol:
    """How scores were obtained; ``str(protocol)`` is the text that is printed with them.

    Attributes
    ----------
    sections, n_spots, n_patients
        Sections, spots and patients that were scored; None if ``obs`` has no patients.
    n_genes, gene_selection
        Number of genes of each method, and in words how they were selected.
    units, layer
        Units of the measured and predicted values, and the measured layer; None is ``X``.
    group_kind, folds
        What a cross-validation left out together (``"section"``, ``"block"`` or a column of
        ``obs``), and the groups of each fold, by its name; None and empty for `tl.evaluate`.
    buffer_um
        For blocks: no training spot was nearer to the block left out, in x and in y.
    targets
        What was scored: ``"genes"`` or ``"programmes"``.
    trained_on
        For `tl.evaluate`: the training sections of each table, as far as they are recorded.
    leaking_patients, leaking_sections
        Patients (or the donors of another column) and sections with spots both in training and
        among those scored. A cross-validation that leaves out sections of a single patient has
        none: `n_patients` is 1.
    notes
        Further sentences, for example about genes that were not measured.
    realigned
        Whether `pp.realign` moved spots, which uses their measured expression.
    n_failed
        Number of fits that failed and are not scored.
    seed
        Random seed of the nulls.
    date, versions
        Day on which the scores were computed, as in 2026-01-31, and versions of the packages.
    """

    sections: tuple[str, ...]
    n_spots: int
    n_patients: int | None
    n_genes: dict[str, int]
    units: str
    layer: str | None
    group_kind: str | None = None
    folds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    buffer_um: float | None = None
    gene_selection: str = ""
    targets: str = "genes"
    trained_on: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaking_patients: tuple[str, ...] = ()
    leaking_sections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    realigned: bool = False
    n_failed: int = 0
    seed: int = 0
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def leaky(self) -> bool:
        """Whether a score is of spots whose patient or section was in training."""
        return bool(self.leaking_patients or self.leaking_sections)

    def to_plain(self) -> dict[str, Any]:
        """All fields in types that zarr and JSON can hold, and the text."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value is not None
        }
        plain["folds"] = {name: list(groups) for name, groups in self.folds.items()}
        plain["trained_on"] = {name: list(names) for name, names in self.trained_on.items()}
        return {**plain, "leaky": self.leaky, "text": str(self)}

    def __str__(self) -> str:
        return " ".join((self.summary, *self.notes))

    @property
    def summary(self) -> str:
        """The protocol in words, without the notes."""
        realigned = "Spots were realigned with the help of their measured expression."
        sentences = (
            self._leaks(),
            self._split(),
            self._genes(),
            f"Pearson correlation per {self.targets[:-1]} within each {self._scored()}, mean over "
            f"{self.targets}, then over sections; constant {self.targets} count as 0. Measured "
            f"values: {self.units}.",
            realigned if self.realigned else "",
            f"{self.n_failed} fits FAILED and are not scored." if self.n_failed else "",
        )
        return " ".join(sentence for sentence in sentences if sentence)

    def _leaks(self) -> str:
        leaking = {"patients": self.leaking_patients, "sections": self.leaking_sections}
        parts = [f"{what} {_validate.listing(names)}" for what, names in leaking.items() if names]
        return f"LEAKY: {' and '.join(parts)} in both training and test." if parts else ""

    def _scored(self) -> str:
        return "section" if self.buffer_um is None else "block of a section"

    def _split(self) -> str:
        words = {None: "unknown patients", 1: "one patient"}
        patients = words.get(self.n_patients, f"{self.n_patients} patients")
        sections = "1 section" if len(self.sections) == 1 else f"{len(self.sections)} sections"
        data = f"{self.n_spots} spots of {sections} of {patients}"
        if self.group_kind is None:
            training = sorted({name for names in self.trained_on.values() for name in names})
            trained = f", trained on {_validate.listing(training)}" if training else ""
            held_out = "" if self.leaky or not training else "Held out: "
            return f"{held_out}{_validate.listing(self.sections)}{trained}; {data}."
        if self.buffer_um is not None:
            return (
                f"Leave one block of each section out ({len(self.folds)} folds), with a buffer of "
                f"{self.buffer_um:g} µm; {data}. The rest of each section is in training: the "
                "score is that of unseen tissue of the same sections, not of other sections."
            )
        single = all(len(groups) == 1 for groups in self.folds.values())
        split = f"Leave one {self.group_kind} out" if single else f"Grouped by {self.group_kind}"
        return f"{split} ({len(self.folds)} folds: {_validate.listing(self.folds)}); {data}."

    def _genes(self) -> str:
        sizes = sorted(set(self.n_genes.values()))
        count = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        return f"{count} {self.targets}{', ' if self.gene_selection else ''}{self.gene_selection}."
