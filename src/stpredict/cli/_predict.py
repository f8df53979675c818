"""``stpredict predict``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from stpredict.cli._command import Command, Device, Genes, Model, names


def _predict(
    model: Model,
    slides: Annotated[
        list[Path], typer.Argument(metavar="SLIDE...", help="Slide files.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    pitch_um: Annotated[
        float | None, typer.Option(help="Distance between spots in µm [default: that of training].")
    ] = None,
    resolution_um: Annotated[
        float | None,
        typer.Option(help="Distance in µm of positions between the spots [default: none]."),
    ] = None,
    genes: Genes = None,
    mpp: Annotated[
        float | None, typer.Option(help="µm per pixel, for files that do not report them.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File with the weights of the model's encoder.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Tiles at a time.")] = 64,
    device: Device = "auto",
    jobs: Annotated[int, typer.Option(help="Slides at a time on this machine.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler, whose workers are used.")
    ] = None,
) -> None:
    """Predict slides: one .zarr and one .h5ad for each, manifest.csv and summary.html.

    Slides that were finished before are skipped, so that an interrupted command can be repeated.
    The exit code is 1 if a slide failed.
    """
    import stpredict as stp

    with _client(scheduler) as client:
        manifest = stp.tl.predict_slides(
            slides,
            stp.models.load(model),
            out,
            pitch_um=pitch_um,
            resolution_um=resolution_um,
            genes=names(genes),
            mpp=mpp,
            weights=weights,
            batch_size=batch_size,
            device=device,
            n_jobs=jobs,
            client=client,
        )
    stp.report.write_slides(out)
    failed = manifest[manifest["state"] == "failed"]
    print(f"finished slides in {out}: {len(manifest) - len(failed)} of {len(manifest)}")
    if not failed.empty:
        raise typer.Exit(1)


def _client(address: str | None) -> AbstractContextManager[Any]:
    """Client of a scheduler, if its address is given."""
    if address is None:
        return nullcontext()
    from distributed import Client

    client: AbstractContextManager[Any] = Client(address)
    return client


predict = Command(
    _predict,
    (
        "stpredict predict deepspot_her2 slides/*.svs --out predictions",
        "stpredict predict deepspot_her2 a.svs b.ndpi --out predictions --pitch-um 100 --jobs 2",
    ),
)
