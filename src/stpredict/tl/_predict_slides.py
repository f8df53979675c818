"""Predict many slides, each once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stpredict import _keys, _runtime, _validate
from stpredict._arguments import checked
from stpredict._log import info, progress_bar
from stpredict._workers import open_client
from stpredict.models._restrict import check_genes
from stpredict.models._save import fingerprint
from stpredict.tl._cohort._jobs import Cohort, run_slides
from stpredict.tl._cohort._records import Records
from stpredict.tl._superresolution._slide import check_slide_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from stpredict.models import Model


@checked
def predict_slides(
    slides: Sequence[str | Path],
    model: Model,
    out: str | Path,
    *,
    pitch_um: float | None = None,
    resolution_um: float | None = None,
    genes: Sequence[str] | None = None,
    mpp: float | None = None,
    weights: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    n_jobs: int = 1,
    client: Any = None,
) -> pd.DataFrame:
    """Predict many slides into one folder, and continue where an interrupted run stopped.

    Every slide is predicted by :func:`stpredict.tl.predict_slide`. Slides that are finished with
    the same model, options and file are skipped. A slide that fails is recorded with its error, the
    others go on, and the next run tries it again. Several runs may share the folder, such as the
    jobs of an array on a cluster.

    Parameters
    ----------
    slides
        Files of slides. Their names without suffix must differ, as results are named by them.
    model
        Fitted model.
    out
        Folder for the results, which is created if needed.
    pitch_um, resolution_um, genes, mpp, weights, batch_size, device
        Options of :func:`stpredict.tl.predict_slide`, the same for all slides.
    n_jobs
        Number of processes on this machine, each with one slide at a time.
    client
        Client of a dask cluster, whose workers read and write the same files. By default the
        active one, if any.

    Returns
    -------
    pandas.DataFrame
        One row per slide: ``name``, ``slide`` (its file), ``state`` (``"finished"`` or
        ``"failed"``), ``seconds``, ``peak_memory_gb`` (of the process, since its start), ``spots``,
        ``familiarity`` (median over the spots, of a calibrated model) and ``error``. Writes
        ``<name>.zarr`` and ``<name>.h5ad`` for each slide, and ``manifest.csv`` with all slides of
        the folder; ``"running"`` slides are being computed, or were interrupted.

    Raises
    ------
    TypeError
        If ``slides`` is no list of paths, or ``client`` no client of dask.
    ValueError
        If there are no slides, two have the same name, or an option is invalid or does not fit
        the model.
    OSError
        If the folder cannot be written, or the weights are no file.

    Examples
    --------
    >>> import tempfile
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001"], context="spot")
    >>> out = tempfile.mkdtemp()
    >>> manifest = stp.tl.predict_slides(["no_such_slide.svs"], model, out)
    >>> manifest[["name", "state"]]
                name   state
    0  no_such_slide  failed
    """
    files = _by_name(slides)
    for name, number in {"n_jobs": n_jobs, "batch_size": batch_size}.items():
        _validate.whole_number(name, number)
    for name, length in {"pitch_um": pitch_um, "mpp": mpp}.items():
        if length is not None:
            _validate.positive(name, length, unit="µm")
    if resolution_um is not None:
        check_slide_model(model, resolution_um)
    if genes is not None:
        check_genes(model, genes)
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(f"weights={str(weights)!r} is no file")
    if client is not None and not hasattr(client, "submit"):
        raise TypeError(f"client must be a client of dask, not {type(client).__name__}")
    _runtime.resolve_device(device)  # raises if there is no such device
    records = Records(Path(out))
    records.create()
    options = {
        "pitch_um": pitch_um,
        "resolution_um": resolution_um,
        "genes": genes,
        "mpp": mpp,
        "weights": weights,
        "batch_size": batch_size,
        "device": device,
    }
    cohort = Cohort(records, model, fingerprint(model), options)
    with (
        open_client(client, n_jobs=min(n_jobs, len(files))) as opened,
        progress_bar(total=len(files), description="predict slides", unit="slide") as bar,
    ):
        for number, (record, is_new) in enumerate(run_slides(cohort, files, opened), start=1):
            outcome = record.error or f"{record.spots} spots in {record.seconds:.0f} s"
            state = record.state if is_new else "finished before"
            info(f"slide {number} of {len(files)}, {record.name}: {state}, {outcome}")
            bar.update()
    manifest = records.manifest()
    return manifest[manifest["name"].isin(list(files))].reset_index(drop=True)


def _by_name(slides: Sequence[str | Path]) -> dict[str, Path]:
    """Files by the names of their results."""
    files = [Path(slide) for slide in slides]
    if not files:
        raise ValueError("slides is empty: give the files of the slides")
    _validate.unique_names([_keys.slide(file) for file in files], what="names of the slides")
    return {_keys.slide(file): file.resolve() for file in files}
