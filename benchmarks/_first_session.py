"""What a step of a session printed and how long it took, and the page about all of them."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from methods import machine, markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREDICTION = re.compile(r"\btl\.predict\(")
WARNING = re.compile(r"(?P<file>.+?):\d+: (?P<category>\w+): (?P<message>.*)")
PROGRESS = re.compile(r"\d+%\||\?*/s\]$")
#: pip reports a package index in its settings that does not exist.
PIP_SETTINGS = re.compile(
    r"WARNING: Location .* is ignored: it is neither a file nor a directory\."
)
#: Packages in the table of imports.
N_PACKAGES = 12
#: Longest line of code on a page.
WIDTH = 80


@dataclass(frozen=True)
class Warned:
    """A warning as Python prints it."""

    package: str  # that causes it, or the file of the user
    category: str
    message: str


@dataclass(frozen=True)
class Step:
    """A command, what it printed, and how long it took."""

    name: str
    seconds: float
    stdout: str
    stderr: str
    statements: list[dict[str, str | float]] = field(default_factory=list)

    @property
    def to_prediction(self) -> float | None:
        """Seconds from the first statement to the end of the first prediction."""
        total = 0.0
        for row in self.statements:
            total += float(row["seconds"])
            if PREDICTION.search(str(row["statement"])):
                return total
        return None

    @property
    def warnings(self) -> list[Warned]:
        """Warnings on stderr."""
        matches = filter(None, map(WARNING.fullmatch, self._lines()))
        return [
            Warned(package(each["file"]), each["category"], each["message"]) for each in matches
        ]

    @property
    def other_lines(self) -> list[str]:
        """Lines on stderr that are neither warnings nor progress bars."""
        lines = self._lines()
        # below a warning is the line of the source that caused it
        sources = {i + 1 for i, line in enumerate(lines) if WARNING.fullmatch(line)}
        sources = {i for i in sources if i < len(lines) and lines[i].startswith("  ")}
        return [
            line
            for i, line in enumerate(lines)
            if i not in sources and not WARNING.fullmatch(line) and not PROGRESS.search(line)
        ]

    def _lines(self) -> list[str]:
        # a progress bar returns to the start of its line
        lines = [line.rpartition("\r")[2] for line in self.stderr.split("\n")]
        return [line for line in lines if line.strip() and not PIP_SETTINGS.fullmatch(line)]


def package(file: str) -> str:
    """Package of a source file, or the name of a file outside of packages."""
    parts = file.replace("\\", "/").split("/")
    for folder in ("site-packages", "src"):
        if folder in parts:
            return parts[parts.index(folder) + 1].removesuffix(".py")
    return parts[-1]


def page(steps: Sequence[Step], imports: Mapping[str, float], versions: Mapping[str, str]) -> str:
    """Text of the page."""
    names = ", ".join(f"{name} {number}" for name, number in versions.items())
    parts = [
        "<!-- written by benchmarks/first_session.py -->",
        "# A first session",
        "Installation and the code of the README, each in a new interpreter, as recorded by "
        "`benchmarks/first_session.py`. The last columns count warnings and other lines on "
        "stderr, without progress bars.",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}. {names}. {machine()}.",
        markdown_table(
            ["step", "seconds", "import to first prediction", "warnings", "other lines"],
            [_row(step) for step in steps],
        ),
        "## What is printed",
        _printed(steps),
    ]
    for step in steps:
        if step.to_prediction is not None:
            lines = "\n".join(map(_line, step.statements))
            parts += [f"## {step.name}", f"Seconds of every statement:\n\n```text\n{lines}\n```"]
    if imports:
        total = sum(imports.values())
        shown = list(imports.items())[:N_PACKAGES]
        rows = [[name, f"{seconds:.2f}"] for name, seconds in shown]
        rest = total - sum(seconds for _, seconds in shown)
        parts += [
            "## Imports",
            f"Imports of the example take {total:.1f} s, as `python -X importtime` measures them:",
            markdown_table(["package", "seconds"], [*rows, ["all others", f"{rest:.2f}"]]),
        ]
    return "\n\n".join(parts) + "\n"


def _row(step: Step) -> list[str]:
    first = "" if step.to_prediction is None else f"{step.to_prediction:.1f}"
    counts = (str(len(step.warnings)), str(len(step.other_lines)))
    return [f"`{step.name}`", f"{step.seconds:.1f}", first, *counts]


def _printed(steps: Sequence[Step]) -> str:
    """List the warnings and other lines, each once."""
    warned = Counter(each for step in steps for each in step.warnings)
    lines = [
        f"- {n} × {each.category} of {each.package}: `{each.message}`" for each, n in warned.items()
    ]
    others = Counter(line for step in steps for line in step.other_lines)
    lines += [f"- {n} × `{line}`" for line, n in others.items()]
    return "\n".join(lines) or "No warning, and nothing else on stderr."


def _line(row: Mapping[str, str | float]) -> str:
    """Seconds and first line of a statement, as wide as a page."""
    line = f"{row['seconds']:6.1f}  {str(row['statement']).partition(chr(10))[0]}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
