"""A gene on the tissue: H&E, measured, predicted, and how far the prediction can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize

from stpredict import _keys, _validate, metrics
from stpredict._sdata import _provenance, _sections
from stpredict.pl._drawing import _measured, _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._sections import Section

_IMAGE, _MEASURED, _PREDICTED, _WIDTH = "image", "measured", "predicted", "width"
#: Every panel that there is.
PANELS = (_IMAGE, _MEASURED, _PREDICTED, _WIDTH, _keys.FAMILIARITY)


@dataclass(frozen=True)
class _Panel:
    """Values of the spots, and how they are shown."""

    title: str
    values: NDArray[np.floating]
    norm: Normalize
    label: str
    cmap: str = "viridis"
    #: Which end of the colour bar leaves values out.
    extend: str = "both"


def prediction(
    sdata: SpatialData,
    gene: str,
    *,
    section: str | None = None,
    show: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> NDArray[Any]:
    """Draw a gene on the tissue: H&E, measured, and predicted on the same colour scale.

    Without measured values of the gene, the H&E and the prediction. Predictions of a calibrated
    model can be shown beside the width of their intervals and the familiarity of the tiles.

    Parameters
    ----------
    sdata
        Sections with ``tables["predicted"]``.
    gene
        Name of a predicted gene.
    section
        Which section; needed where there are several.
    show
        Panels, from left to right: of ``"image"``, ``"measured"``, ``"predicted"``, ``"width"``
        (``layers["upper"]`` minus ``layers["lower"]``) and ``"familiarity"``
        (``obs["familiarity"]``, 1 of tiles like those of the training). By default the image, the
        measured values where they are known, and the prediction.
    axes
        Axes to draw on, one per panel; by default new ones.

    Returns
    -------
    Array of :class:`matplotlib.axes.Axes`, one per panel. Axes are in µm, the origin at the upper
    left of the image.

    Raises
    ------
    KeyError
        If the gene was not predicted, there is no such section, or what a panel shows is not
        there.
    ValueError
        If there are several sections and none is named, a panel is unknown, named twice, or none
        is named, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> axes = stp.pl.prediction(sdata, "ERBB2")  # doctest: +SKIP
    >>> axes = stp.pl.prediction(
    ...     sdata, "ERBB2", show=["measured", "predicted", "width", "familiarity"]
    ... )  # doctest: +SKIP
    """
    _check(show)
    predicted = _sections.table_of(sdata, _keys.PREDICTED)
    if gene not in predicted.var_names:
        raise KeyError(
            f"{gene!r} was not predicted; predicted genes: {_validate.listing(predicted.var_names)}"
        )
    found = _section.choose(_sections.sections(sdata, predicted), section)
    panels = _panels(sdata, predicted, found, gene)
    if show is None:
        show = [name for name in (_MEASURED, _PREDICTED) if name in panels]
        show = [_IMAGE, *show]
    _require(show, panels, gene)
    within, n = _section.limits(found), len(show)
    drawn = _section.new_axes(n, within) if axes is None else _section.given_axes(axes, n)
    # measured and predicted have one scale, and one colour bar
    first = [name for name in show if name in (_MEASURED, _PREDICTED)][:-1]
    for ax, name in zip(drawn, show, strict=True):
        if name == _IMAGE:
            _section.draw_image(ax, found, within)
            ax.set_title(f"{found.name}: H&E")
        else:
            _draw(ax, found, panels[name], bar=name not in first)
        _section.frame(ax, within)
    return drawn


def _check(show: Sequence[str] | None) -> None:
    """Require panels that there are, each once."""
    if show is None:
        return
    if isinstance(show, str) or not len(show):
        raise ValueError(f"show must name panels, such as {list(PANELS)}: {show!r}")
    for name in show:
        _validate.one_of("show", name, PANELS)
    _validate.unique_names(show, what="panels")


def _require(show: Sequence[str], panels: dict[str, _Panel], gene: str) -> None:
    """Require what the panels show."""
    mend = {
        _MEASURED: f"measured values of {gene!r} are not known for these spots",
        _WIDTH: f"tables[{_keys.PREDICTED!r}] has no layers[{_keys.LOWER!r}] and "
        f"layers[{_keys.UPPER!r}]: predict with a model of stp.tl.calibrate",
        _keys.FAMILIARITY: f"tables[{_keys.PREDICTED!r}] has no obs[{_keys.FAMILIARITY!r}]: "
        "predict with a model of stp.tl.calibrate",
    }
    for name in show:
        if name != _IMAGE and name not in panels:
            raise KeyError(f"there is nothing to show as {name!r}: {mend[name]}")


def _panels(sdata: SpatialData, predicted: AnnData, found: Section, gene: str) -> dict[str, _Panel]:
    """Everything that can be shown of a gene but the image."""
    how = _provenance.recorded(predicted, "predict")
    units, column = how["units"], predicted.var_names.get_loc(gene)
    values = np.asarray(predicted.X[found.rows, column])
    column_of_gene = _measured.measured(sdata, predicted, found.rows, [gene])
    measured = None if column_of_gene is None else column_of_gene[:, 0]
    pooled = values if measured is None else np.concatenate([measured, values])
    # the same scale for both, not stretched by single spots
    norm = Normalize(*np.percentile(pooled, [1, 99]))
    panels = {_PREDICTED: _Panel(f"{gene} predicted", values, norm, units)}
    if measured is not None:
        panels[_MEASURED] = _Panel(f"{gene} measured", measured, norm, units)
        if len(values) > 1:
            score = metrics.pcc(measured[:, None], values[:, None])[0]
            title = f"{gene} predicted (PCC {score:.2f})"
            panels[_PREDICTED] = _Panel(title, values, norm, units)
    if {_keys.LOWER, _keys.UPPER} <= set(predicted.layers):
        lower, upper = (
            np.asarray(predicted.layers[layer][found.rows, column])
            for layer in (_keys.LOWER, _keys.UPPER)
        )
        norm = Normalize(0, np.percentile(upper - lower, 99))
        title = f"{gene} width of the interval"
        panels[_WIDTH] = _Panel(title, upper - lower, norm, units, "plasma", "max")
    if _keys.FAMILIARITY in predicted.obs:
        familiar = predicted.obs[_keys.FAMILIARITY].to_numpy(dtype=float)[found.rows]
        panels[_keys.FAMILIARITY] = _Panel(
            "familiarity of the tiles", familiar, Normalize(0, 1), "1: as in training", "cividis",
            "neither",
        )  # fmt: skip
    return panels


def _draw(ax: Axes, section: Section, panel: _Panel, *, bar: bool) -> None:
    spots = _section.draw_spots(ax, section, panel.values, panel.norm, cmap=panel.cmap)
    ax.set_title(panel.title)
    if bar:
        ends = {} if panel.extend == "neither" else {"extendfrac": 0.03}
        _section.draw_bar(ax, spots, panel.label, extend=panel.extend, **ends)
