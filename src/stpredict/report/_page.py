"""The page itself: a template, its style and its script, filled with what was found."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from stpredict.report import _figure, _maps, _tables, _words
from stpredict.results import NOISE_CEILING, PCC_SHUFFLED, PCC_SPATIAL_NULL

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from stpredict.report._maps import Maps
    from stpredict.results import CrossValidation

#: By which a report is known to be one.
GENERATOR = "stpredict.report"


def is_report(path: Path) -> bool:
    """Whether a file is a report, which may be replaced."""
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR} '.encode() in file.read(1000)


def render(
    result: CrossValidation, table: AnnData, drawn: Maps, reliable: pd.DataFrame | None
) -> str:
    """The page as text."""
    from stpredict import __version__

    style, script = _source("report.css"), _source("report.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    genes = _tables.genes(result, reliable)
    return environment.from_string(_source("report.html")).render(
        generator=f"{GENERATOR} {__version__}",
        # nothing but what is in the file is run, styled by or shown, whatever names may contain
        policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'",
        style=Markup(style),
        script=Markup(script),
        result=result,
        date=result.settings.get("date", datetime.date.today().isoformat()),
        settings=_settings(result),
        n_spots=table.n_obs,
        figure=_figure.of_methods(result),
        summary=_tables.summary(result),
        differences=_tables.differences(result),
        by_section=_tables.by_section(result),
        genes=genes,
        tissues=drawn.tissues,
        series=[_maps.MEASURED, *(_words.method(name) for name in drawn.methods)],
        n_drawn=len(drawn.genes),
        data=_data(result, drawn, [row.name for row in genes.rows], reliable),
    )


def _source(name: str) -> str:
    return files("stpredict.report").joinpath(name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _settings(result: CrossValidation) -> dict[str, str]:
    """Settings in words, those that there are."""
    told = {}
    for key, label in _words.SETTINGS.items():
        value = result.settings.get(key)
        if value is None:
            continue
        if isinstance(value, Mapping) and all([name] == part for name, part in value.items()):
            value = list(value)  # each fold is named by its one section
        if isinstance(value, Mapping):
            value = "; ".join(f"{name}: {_in_words(part)}" for name, part in value.items())
        told[label] = _in_words(value)
    return told


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _data(
    result: CrossValidation, drawn: Maps, genes: list[str], reliable: pd.DataFrame | None
) -> dict[str, Any]:
    """What the script draws from."""
    sections = [tissue.name for tissue in drawn.tissues]
    pcc = _tables.per_section(result, "pcc", genes, sections)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, _maps.MISSING), bytes=True)
    return {
        "genes": genes,
        "sections": sections,
        "tissues": [
            {"x": tissue.x, "y": tissue.y, "radius": tissue.radius} for tissue in drawn.tissues
        ],
        "units": str(result.settings.get("units", "")),
        "colours": base64.b64encode(np.ascontiguousarray(colours[:, :3]).tobytes()).decode(),
        "maps": {
            gene: [scale, values]
            for gene, scale, values in zip(drawn.genes, drawn.scales, drawn.values, strict=True)
        },
        # rows of the scores of a gene: its label, whether a method's, and where its map is
        "rows": [
            {
                "name": name,
                "label": _words.method(name),
                "kind": _kind(result, name),
                "map": 1 + drawn.methods.index(name) if name in drawn.methods else None,
            }
            for name in pcc
        ],
        "pcc": pcc,
        "reliable": {}
        if reliable is None
        else {name: [int(known) for known in reliable.loc[genes, name]] for name in reliable},
        "nulls": {
            label: _tables.per_section(result, metric, genes, sections)
            for label, metric in (
                ("spatial null", PCC_SPATIAL_NULL),
                ("shuffled", PCC_SHUFFLED),
            )
        },
    }


def _kind(result: CrossValidation, name: str) -> str:
    if name in result.methods:
        return "method"
    return "ceiling" if name == NOISE_CEILING else "reference"
