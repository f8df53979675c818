"""Sphinx configuration; build with ``python -m nox -s docs``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pandas as pd

# -- Project -------------------------------------------------------------------------------------

info = metadata("stpredict")
project = info["Name"]
author = info["Author"]
copyright = f"2026, {author}"
release = version = info["Version"]
urls = dict(url.split(", ", maxsplit=1) for url in info.get_all("Project-URL") or [])

# -- General -------------------------------------------------------------------------------------

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "included", "jupyter_execute", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
# Single backticks mark code, as in the docstrings of numpy and scanpy.
default_role = "literal"
needs_sphinx = "8.1"
nitpicky = True

# -- API pages -----------------------------------------------------------------------------------

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_numpy_docstring = True
# Types in docstrings include shapes and units ("(n_obs, d) float32"). In parameter fields, Sphinx
# would look up each of their words as the name of a class.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # the signature shows them
napoleon_custom_sections = [("Attributes", "params_style")]

# -- Links to other projects ---------------------------------------------------------------------

# An inventory that cannot be downloaded is a warning, and hence an error. Links are therefore
# resolved on Read the Docs only, so that other builds need no network.
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "spatialdata": ("https://spatialdata.scverse.org/en/stable/", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

# Types of other projects are links if an inventory is available, and plain text otherwise. Types
# below `stpredict`, and references by :func:, :meth: or :mod:, must resolve.
other_projects = (
    "anndata|dask|geopandas|lightning|matplotlib|numpy|pandas|pooch|safetensors|scanpy|scipy|"
    "shapely|sklearn|spatialdata|spatialdata_io|squidpy|timm|torch|xarray|zarr"
)
nitpick_ignore_regex = [
    (r"py:(class|exc|obj|data)", r"(?!stpredict\.).*"),
    (r"py:(func|meth|attr|mod)", rf"({other_projects})(\..*)?"),
]

# -- Notebooks -----------------------------------------------------------------------------------

# Run at each build, so that the pages show the output of the current code. The tutorials need
# data and minutes: they are stored with their outputs, which `nox -s notebooks` compares.
nb_execution_mode = "force"
nb_execution_excludepatterns = ["tutorials/*.ipynb"]
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove-warn"  # a page that shows a warning of Python fails

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# -- HTML ----------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["stpredict.css"]
html_theme_options = {
    "path_to_docs": "docs/",
    "navbar_persistent": [],  # the search box of the sidebar is enough
    "use_fullscreen_button": False,
}
if "Source" in urls:
    html_theme_options |= {"repository_url": urls["Source"], "use_repository_button": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def plain_defaults(
    _app: Any,
    _what: str,
    _name: str,
    _obj: Any,
    _options: Any,
    signature: str | None,
    ret: str | None,
) -> tuple[str | None, str | None]:
    """Replace defaults of dataclasses that Sphinx cannot parse, such as ``<factory>``."""
    return (re.sub(r"= ?<[^<>]*>", "= ...", signature) if signature else signature), ret


def interleave_pages(_app: Any, _env: Any, pages: list[str]) -> None:
    """Spread the notebooks over the jobs; in alphabetical order, one job would get all of them."""
    pages[:] = pages[::2] + pages[1::2]


def write_included(_app: Any) -> None:
    """Write the parts of pages that are made from the package."""
    folder = Path(__file__).parent / "included"
    folder.mkdir(exist_ok=True)
    parts = {"cli": command_line(), "metrics": table_of_metrics(), "encoders": table_of_encoders()}
    for name, text in parts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def command_line() -> str:
    """Options of all commands."""
    command = [sys.executable, "-m", "typer", "stpredict.cli._app", "utils", "docs"]
    options = ["--name", "stpredict", "--title", "Command line"]
    text = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", text)  # cut off after 45 characters
    return text.replace("```console\n$ ", "```bash\n")


def table_of_metrics() -> str:
    """All metrics, by name."""
    from stpredict.metrics import METRICS

    rows = [
        [
            f"`{name}`",
            metric.description,
            "" if metric.chance is None else str(metric.chance),
            "yes" if metric.needs_units else "no",
        ]
        for name, metric in METRICS.items()
    ]
    return markdown_table(["name", "what it is", "chance", "needs equal units"], rows)


def table_of_encoders() -> str:
    """All encoders that are used by name."""
    from stpredict.encoders import table

    rows = [
        [
            f"[{row.Index}]({row.source})" if row.source.startswith("https") else row.Index,
            *("" if pd.isna(value) else str(value) for value in (row.dimension, row.input_px)),
            row.licence,
            "yes" if row.gated else "no",
            row.package,
        ]
        for row in table().itertuples()
    ]
    return markdown_table(["encoder", "dimension", "input_px", "licence", "gated", "package"], rows)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("builder-inited", write_included)
    app.connect("autodoc-process-signature", plain_defaults)
    app.connect("env-before-read-docs", interleave_pages)
