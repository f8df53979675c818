"""The page: a template, its style and its script, filled with scores and maps."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from stpredict._atomic import require_folder
from stpredict.pl import metrics
from stpredict.report import _maps, _tables, _words
from stpredict.results import PCC_SHUFFLED, PCC_SPATIAL_NULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from stpredict.report._maps import Maps
    from stpredict.results import Scores

#: Marks a file as a report of this package.
GENERATOR = "stpredict.report"


def is_report(path: Path) -> bool:
    """Whether a file is a report, which may be replaced."""
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR} '.encode() in file.read(1000)


def writable(path: str | Path) -> Path:
    """Path at which a report may be written."""
    path = Path(path)
    require_folder(path)
    if path.is_dir() or (path.exists() and not is_report(path)):
        raise FileExistsError(f"{path} exists and is not a report of stpredict: use another path")
    return path


def render(
    scores: Scores, maps: Maps, reliable: pd.DataFrame | None, rescaled: Sequence[str] = ()
) -> str:
    """Text of the page; ``rescaled`` methods are drawn on the scale of the measured values."""
    from stpredict import __version__

    style, script = source("report.css"), source("report.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    genes = _tables.genes(scores, reliable)
    return environment.from_string(source("report.html")).render(
        generator=f"{GENERATOR} {__version__}",
        # only the style and the script of this file are used, whatever names may contain
        policy=f"default-src 'none'; img-src data:; style-src '{digest(style)}'; "
        f"script-src '{digest(script)}'",
        style=Markup(style),
        script=Markup(script),
        scores=scores,
        protocol=scores.protocol,
        facts=_words.facts(scores),
        title="Evaluation" if scores.protocol.group_kind is None else "Cross-validation",
        rescaled=[_words.method_label(name) for name in rescaled],
        figure=_methods_figure(scores),
        summary=_tables.summary(scores),
        differences=_tables.differences(scores),
        by_section=_tables.by_section(scores),
        genes=genes,
        programs=None if scores.programs is None else _tables.genes(scores.programs, None),
        sections=maps.sections,
        series=[_maps.MEASURED, *(_words.method_label(name) for name in maps.methods)],
        n_drawn=len(maps.genes),
        data=_data(scores, maps, [row.name for row in genes.rows], reliable),
    )


def _methods_figure(scores: Scores) -> str:
    """`pl.metrics` as a data URI."""
    n_rows = scores.values("pcc").shape[1]
    # a figure outside pyplot, which no session shows and which needs no display
    figure = Figure(figsize=(7.5, 1.6 + 0.5 * n_rows), layout="constrained")
    metrics(scores, ax=figure.subplots())
    buffer, lossless = io.BytesIO(), {"lossless": True}
    figure.savefig(buffer, format="webp", dpi=160, bbox_inches="tight", pil_kwargs=lossless)
    return _maps.webp_uri(buffer)


def source(name: str) -> str:
    return files("stpredict.report").joinpath(name).read_text(encoding="utf-8")


def digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _data(
    scores: Scores, maps: Maps, genes: list[str], reliable: pd.DataFrame | None
) -> dict[str, Any]:
    """Data of the script, as JSON."""
    sections = [section.name for section in maps.sections]
    pcc = _tables.per_section(scores, "pcc", genes, sections)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 1, _maps.NO_VALUE), bytes=True)
    return {
        "genes": genes,
        "sections": sections,
        "spots": [{"x": part.x, "y": part.y, "radius": part.radius} for part in maps.sections],
        "colors": base64.b64encode(np.ascontiguousarray(colors[:, :3]).tobytes()).decode(),
        "maps": {
            gene: pair for gene, *pair in zip(maps.genes, maps.scales, maps.values, strict=True)
        },
        # rows of the scores of a gene; map is the index of the method's panel
        "rows": [
            {
                "name": name,
                "label": _words.method_label(name),
                "kind": _tables.kind_of(scores, name),
                "map": 1 + maps.methods.index(name) if name in maps.methods else None,
            }
            for name in pcc
        ],
        "pcc": pcc,
        "reliable": {} if reliable is None else reliable.loc[genes].astype(int).to_dict("list"),
        "nulls": {
            "spatial null": _tables.per_section(scores, PCC_SPATIAL_NULL, genes, sections),
            "shuffled": _tables.per_section(scores, PCC_SHUFFLED, genes, sections),
        },
    }
