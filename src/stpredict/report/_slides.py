"""Pictures of predicted slides, and the page that shows them."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from stpredict import _keys, pl
from stpredict.report import _maps, _page
from stpredict.tl._prediction._store import read_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from stpredict.tl._cohort._records import Records

#: Genes that are drawn unless others are given.
_N_GENES = 3
_PANEL_INCHES, _DPI = 3.6, 110


def most_variable_genes(records: Records, manifest: pd.DataFrame) -> list[str]:
    """Genes whose predictions vary most within the slide that was finished first."""
    finished = manifest.loc[manifest["state"] == "finished", "name"]
    if finished.empty:
        return []
    first = min(finished, key=lambda name: records.file(name).stat().st_mtime_ns)
    predicted = read_result(records.results(first)[0]).tables[_keys.PREDICTED]
    variance = np.asarray(predicted.X.var(axis=0))
    return predicted.var_names[np.argsort(-variance, kind="stable")[:_N_GENES]].tolist()


def render(records: Records, manifest: pd.DataFrame, genes: Sequence[str]) -> str:
    """Text of the page."""
    from stpredict import __version__

    style = _page.source("report.css")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_page.source("slides.html")).render(
        generator=f"{_page.GENERATOR} {__version__}",
        policy=f"default-src 'none'; img-src data:; style-src '{_page.digest(style)}'",
        style=Markup(style),
        states=manifest["state"].value_counts().to_dict(),
        n_spots=int(manifest["spots"].sum()),
        genes=list(genes),
        rows=[_row(records, row, genes) for row in manifest.to_dict("records")],
    )


def _row(records: Records, slide: dict[Any, Any], genes: Sequence[str]) -> dict[str, Any]:
    numbers = {"spots": ",.0f", "seconds": ",.0f", "peak_memory_gb": ".2f", "familiarity": ".2f"}
    cells = [
        "" if pd.isna(slide[name]) else format(float(slide[name]), digits)
        for name, digits in numbers.items()
    ]
    is_finished = slide["state"] == "finished"
    return {
        "name": slide["name"],
        "anchor": f"slide-{slide['name']}",
        "cells": [slide["state"], *cells],
        "file": slide["slide"],
        "error": slide["error"],
        "picture": _picture(records, slide["name"], genes) if is_finished else None,
    }


def _picture(records: Records, name: str, genes: Sequence[str]) -> str:
    """Outline of the tissue and maps of genes as a data URI; drawn once per result."""
    key = f"{records.file(name).read_text(encoding='utf-8')} {list(genes)}"
    stored = records.picture(name, hashlib.sha256(key.encode()).hexdigest()[:16])
    if not stored.exists():
        buffer = io.BytesIO()
        _draw(read_result(records.results(name)[0]), genes).savefig(
            buffer, format="webp", dpi=_DPI, bbox_inches="tight", pil_kwargs={"quality": 80}
        )
        records.replace_picture(name, stored, _maps.webp_uri(buffer))
    return stored.read_text(encoding="utf-8")


def _draw(result: SpatialData, genes: Sequence[str]) -> Figure:
    n_panels = 1 + len(genes)
    figure = Figure(figsize=(_PANEL_INCHES * n_panels, _PANEL_INCHES), layout="constrained")
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    tissue = result.subset([*result.images, *result.labels])  # without spots
    pl.tissue(tissue, ax=axes[0])
    # the name is the heading, and long ones would overlap the next title
    axes[0].set_title(axes[0].get_title().rpartition(": ")[2])
    for gene, ax in zip(genes, axes[1:], strict=True):
        pl.prediction(result, gene, panels=["predicted"], axes=[ax])
    return figure
