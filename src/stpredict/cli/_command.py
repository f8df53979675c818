"""A command with its examples, and parameters that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

DEVICE = "auto (cuda, then mps, then cpu), cpu, cuda, cuda:1, mps."

Device = Annotated[str, typer.Option(help=DEVICE)]
Genes = Annotated[str | None, typer.Option(help="Names of genes, separated by commas.")]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a saved model.", show_default=False)
]
Sections = Annotated[
    Path,
    typer.Argument(
        metavar="SECTIONS", help="Measured sections, a SpatialData (.zarr).", show_default=False
    ),
]


@dataclass(frozen=True)
class Command:
    """A function that typer turns into a command, and examples for its help."""

    function: Callable[..., None]
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the command."""
        return self.function.__name__.removeprefix("_")

    @property
    def examples(self) -> str:
        """Examples in Markdown, one paragraph each."""
        return "\n\n".join(("**Examples**", *(f"`{line}`" for line in self.lines)))


def names(text: str | None) -> list[str] | None:
    """Names from a list with commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
