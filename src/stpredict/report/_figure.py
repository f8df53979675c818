"""The figure of the page: all methods over the genes."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from stpredict.pl import metrics

if TYPE_CHECKING:
    from stpredict.results import CrossValidation

_DPI = 160


def of_methods(result: CrossValidation) -> str:
    """`pl.metrics` as text that a page can hold."""
    rows = result.values("pcc").shape[1]
    # a figure of its own, which shows in no session and needs no display
    figure = Figure(figsize=(7.5, 1.6 + 0.5 * rows), layout="constrained")
    metrics(result, ax=figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="webp", dpi=_DPI, bbox_inches="tight", pil_kwargs={"lossless": True}
    )
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
