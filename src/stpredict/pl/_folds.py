"""Training spots, test spots and buffer of each fold, on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from stpredict import _keys, _validate
from stpredict._arguments import checked
from stpredict._sdata._buffer import rows_near
from stpredict._sdata._provenance import recorded
from stpredict._sdata._spot_table import open_table
from stpredict.pl._drawing import _axes, _scores, _section
from stpredict.pl._drawing._section import SpotStyle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stpredict._sdata._spot_table import SpotTable

#: Colour of each part, as in other pictures of scores.
_COLORS = {"test": _scores.METHOD, "buffer": _scores.BASELINE, "training": _scores.CEILING}


@checked
def folds(
    sdata: SpatialData,
    *,
    section: str | Sequence[str] | None = None,
    fold: str | Sequence[str] | None = None,
    spot_size: float | None = None,
    alpha: float = 0.8,
    table_name: str = "table",
    key: str = "out_of_fold",
    axes: Axes | Sequence[Axes] | NDArray[Any] | None = None,
    save: str | Path | None = None,
) -> NDArray[Any]:
    """Draw which spots each fold of a cross-validation trains on, tests on, and leaves unused.

    Each section is a row, and each fold a column. Spots in the buffer of ``groups="blocks"`` are
    neither in training nor in test.

    Parameters
    ----------
    sdata
        Sections on which :func:`stpredict.tl.cross_validate` was run.
    section, fold
        Name of a section and of a fold, or several; by default all.
    spot_size, alpha
        Diameter of the spots in µm, by default as stored, and their opacity from 0 to 1.
    table_name, key
        Table that was cross-validated, and table with the out-of-fold predictions.
    axes, save
        Axes to draw on, row by row, by default new ones; file to save the figure to.

    Returns
    -------
    numpy.ndarray
        Axes in µm, (n_sections, n_folds), or (n_folds,) for a single section.

    Raises
    ------
    KeyError
        If there is no such table.
    ValueError
        If the table ``key`` was not written by `cross_validate` or has other rows, there is no such
        section or fold, an option is out of range, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(1, size_px=1200)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=5)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    >>> scores = stp.tl.cross_validate(
    ...     sdata, {"ridge": stp.tl.fit_ridge}, groups="blocks", n_folds=3
    ... )
    >>> stp.pl.folds(sdata).shape
    (3,)
    """
    style = SpotStyle(spot_size=spot_size, alpha=alpha)
    spots, out_of_fold = open_table(sdata, table_name), open_table(sdata, key).table
    protocol = recorded(out_of_fold, "cross_validate")
    if not protocol or _keys.FOLD not in out_of_fold.obs:
        raise ValueError(f"tables[{key!r}] was not written by stp.tl.cross_validate: run it first")
    if not spots.table.obs_names.equals(out_of_fold.obs_names):
        raise ValueError(
            f"tables[{key!r}] and tables[{table_name!r}] have different rows: run "
            "stp.tl.cross_validate again"
        )
    fold_of_row = out_of_fold.obs[_keys.FOLD].astype("category")
    available = fold_of_row.cat.categories.tolist()  # in the order of the run, also in files
    names = available if fold is None else fold
    names = _validate.name_list("fold", [names] if isinstance(names, str) else names)
    for name in names:
        _validate.one_of("fold", name, available)
    sections = _section.sections_to_draw(spots, section)
    parts = [
        _parts(spots, (fold_of_row == name).to_numpy(), protocol.get("buffer_um")) for name in names
    ]
    corners = [_section.limits(part) for part in sections]
    grid = _axes.section_axes(axes, corners, len(names), width=3.2)
    leaky = bool(protocol.get("leaky"))
    for row, part, within in zip(grid, sections, corners, strict=True):
        _section.draw_images(list(row), [part] * len(row), within)
        for ax, name, part_of_row in zip(row, names, parts, strict=True):
            labels = part_of_row[part.rows]
            colors = [_COLORS[label] for label in labels]
            _section.draw_spots(ax, part, style, facecolors=colors, linewidths=0)
            counts = [f"{(labels == label).sum()} {label}" for label in _COLORS if label in labels]
            _scores.set_title(ax, f"{part.name} · {name}\n{', '.join(counts)}", leaky=leaky)
    look: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 7}
    handles = [Line2D([], [], color=color, label=label, **look) for label, color in _COLORS.items()]
    grid[0, -1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    return _axes.finish(grid, save)


def _parts(
    spots: SpotTable, is_test: NDArray[np.bool_], buffer_um: float | None
) -> NDArray[np.str_]:
    """Part of each row in a fold, (n_obs,)."""
    parts = np.where(is_test, "test", "training").astype("<U8")
    if buffer_um is not None:
        parts[rows_near(spots, np.flatnonzero(is_test), buffer_um)] = "buffer"
    return parts
