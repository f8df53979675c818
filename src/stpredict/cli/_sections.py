"""Measured sections, and the methods that train on them."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialdata import SpatialData

    from stpredict.models import Model as FittedModel


class Method(StrEnum):
    """Methods of ``stp.tl.fit_<name>`` that need no other models."""

    DEEPSPOT = "deepspot"
    DEEPCELL = "deepcell"
    RIDGE = "ridge"
    TREES = "trees"
    CNN = "cnn"
    MULTISCALE = "multiscale"

    @property
    def uses_pixels(self) -> bool:
        """Whether the method reads tiles instead of embeddings."""
        return self in (Method.CNN, Method.MULTISCALE)


class Standardize(StrEnum):
    """Rows over which features are standardised."""

    TRAINING = "training"
    SECTION = "section"


Encoder = Annotated[str, typer.Option(help="Encoder of the tiles; see stpredict doctor.")]
Weights = Annotated[Path | None, typer.Option(help="File with the weights of the encoder.")]
NTopGenes = Annotated[int, typer.Option(help="Number of genes, unless genes are selected.")]

Standardization = Annotated[
    Standardize | None,
    typer.Option(
        "--standardize",
        help="Rows over which features of the encoder are standardised, by default the method's.",
        show_default=False,
    ),
]


def read_sections(path: Path) -> SpatialData:
    """Read a SpatialData."""
    import spatialdata

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a SpatialData written as .zarr")
    return spatialdata.read_zarr(path)


def prepare_training(
    sdata: SpatialData,
    methods: list[Method],
    *,
    encoder: str,
    weights: Path | None,
    n_top_genes: int,
    device: str,
) -> None:
    """Run the steps of ``stp.pp`` that the README's session has and the sections lack."""
    import stpredict as stp
    from stpredict import _keys
    from stpredict.encoders._aliases import slot_part

    table = sdata.tables[_keys.TABLE]
    if _keys.LOG1P not in table.layers:
        stp.pp.filter_spots(sdata)
        stp.pp.normalize(sdata)
    if _keys.SELECTED not in sdata.tables[_keys.TABLE].var:
        stp.pp.select_genes(sdata, n_top_genes=min(n_top_genes, table.n_vars))
    if all(method.uses_pixels for method in methods):
        return
    if _keys.embedding(slot_part(encoder)) not in sdata.tables[_keys.TABLE].obsm:
        stp.pp.embed(sdata, encoder, weights=weights, device=device)
    if _keys.CONNECTIVITIES not in sdata.tables[_keys.TABLE].obsp:
        stp.pp.neighbors(sdata)


def fit_function(
    method: Method, *, encoder: str, standardize: Standardize | None, seed: int, device: str
) -> Callable[[SpatialData], FittedModel]:
    """``stp.tl.fit_<method>`` with the options of the command."""
    if standardize is not None and method.uses_pixels:
        raise ValueError(
            f"--standardize is for features of an encoder, but {method} reads pixels: leave it out"
        )
    import stpredict as stp
    from stpredict import _keys
    from stpredict.encoders._aliases import slot_part

    function = getattr(stp.tl, f"fit_{method}")
    options = {"embedding": _keys.embedding(slot_part(encoder)), "seed": seed, "device": device}
    if standardize is not None:
        options["standardize"] = standardize.value
    accepted = signature(function).parameters
    return partial(function, **{name: options[name] for name in options if name in accepted})
