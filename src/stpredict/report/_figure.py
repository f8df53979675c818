"""The figure of the page, and images as text."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from stpredict.pl import metrics

if TYPE_CHECKING:
    from stpredict.results import Scores

_DPI = 160


def methods_figure(scores: Scores) -> str:
    """`pl.metrics` as a data URI."""
    n_rows = scores.values("pcc").shape[1]
    # a figure outside pyplot, which no session shows and which needs no display
    figure = Figure(figsize=(7.5, 1.6 + 0.5 * n_rows), layout="constrained")
    metrics(scores, ax=figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="webp", dpi=_DPI, bbox_inches="tight", pil_kwargs={"lossless": True}
    )
    return webp_uri(buffer)


def webp_uri(buffer: io.BytesIO) -> str:
    """Data URI of a WebP image."""
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
