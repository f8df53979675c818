"""HTML page of the slides of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stpredict import _validate
from stpredict._arguments import checked
from stpredict._atomic import replaced
from stpredict._log import info
from stpredict.report import _page, _slides
from stpredict.tl._cohort._records import Records

if TYPE_CHECKING:
    from collections.abc import Sequence


@checked
def write_slides(
    folder: str | Path, path: str | Path | None = None, *, genes: Sequence[str] | None = None
) -> None:
    """Write the slides that :func:`stpredict.tl.predict_slides` predicted as one HTML page.

    The page has the manifest, and for every slide its tissue and a map of each gene. Errors of
    failed slides are shown. The file contains all pictures, and needs no network.

    Parameters
    ----------
    folder
        Folder of the results, ``out`` of :func:`stpredict.tl.predict_slides`.
    path
        File to write, by default ``summary.html`` in the folder; an existing page is replaced once
        the new one is complete.
    genes
        Genes to draw, which every slide has; by default the three whose predictions vary most in
        the slide that was finished first.

    Raises
    ------
    FileNotFoundError, FileExistsError
        If the folder has no results, or the file exists and is no report.
    KeyError
        If a slide has no predictions of a gene.

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
    >>> stp.report.write_slides(out)
    """
    records = Records(Path(folder))
    manifest = records.manifest()
    if manifest.empty:
        raise FileNotFoundError(f"{folder} has no results: run stp.tl.predict_slides first")
    path = _page.writable(Path(folder) / "summary.html" if path is None else path)
    if genes is None:
        names = _slides.most_variable_genes(records, manifest)
    else:
        names = _validate.name_list("genes", genes)
    page = _slides.render(records, manifest, names)
    with replaced(path) as file:
        file.write(page)
    info(f"{path}: {len(manifest)} slides, genes {_validate.listing(names)}")
