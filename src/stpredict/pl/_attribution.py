"""What the prediction of a gene is due to, on the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize

from stpredict import _keys, _validate
from stpredict._sdata import _provenance, _sections
from stpredict.pl._drawing import _section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

#: Tiles that are drawn where no spots are named.
_MOST_TILES = 4
#: Red adds to the prediction, blue takes away.
_CMAP = "RdBu_r"
#: Percentile of the sizes at which the colours end: single pixels do not stretch them.
_ENDS = 99.5


def attribution(
    sdata: SpatialData,
    gene: str,
    *,
    section: str | None = None,
    spots: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> NDArray[Any]:
    """Draw what the prediction of a gene is due to.

    Of models on embeddings, the H&E, and on every spot the share of its own tile, of its sub-tiles
    and of its neighbours, as far as the model looks at them, titled with their part of the mean
    size of all; or, of ``spots``, the share of each
    neighbour around them. Of models on pixels, tiles, and below them their pixels on the tile in
    grey. Red adds to the prediction, blue takes away; all panels have one scale.

    Parameters
    ----------
    sdata
        Sections on which :func:`stpredict.tl.attribute` was run.
    gene
        Name of the gene.
    section
        Which section; needed where several were attributed.
    spots
        Spots to look at closely, named as in ``obs_names``; of models on pixels by default the
        first four that were attributed.
    axes
        Axes to draw on; by default new ones. One for the H&E and one for each part of the context;
        with ``spots``, one for each of them; of models on pixels two, all upper ones first.

    Returns
    -------
    Array of :class:`matplotlib.axes.Axes`; of models on pixels (2, n). Axes are in µm, the origin
    at the upper left of the image.

    Raises
    ------
    KeyError
        If the gene was not attributed, or not in that section or those spots.
    ValueError
        If there are several sections and none is named, or the number of axes is wrong.

    Examples
    --------
    >>> import stpredict as stp
    >>> axes = stp.pl.attribution(sdata, "ERBB2")  # doctest: +SKIP
    """
    predicted = _sections.table_of(sdata, _keys.PREDICTED)
    how = _recorded(predicted, gene)
    values = predicted.obsm[_keys.attribution(gene)]
    if isinstance(values, pd.DataFrame):
        done = values["spot"].notna().to_numpy()
    else:
        done = np.diff(values.indptr) > 0
    seen = _sections.sections(sdata, predicted, normalized=how.get("normalized", False))
    found = _choose(seen, section, done, gene)
    if not isinstance(values, pd.DataFrame):
        return _draw_tiles(predicted, found, _places(predicted, found, spots, done), how, axes)
    if spots is not None:
        return _draw_around(predicted, found, _places(predicted, found, spots, done), how, axes)
    return _draw_context(found, values, how, axes)


def _recorded(predicted: AnnData, gene: str) -> dict[str, Any]:
    """How the gene was attributed."""
    known = {
        key: how
        for key, how in _provenance.recorded(predicted, "attribute").items()
        if isinstance(how, dict) and key in predicted.obsm
    }
    how = known.get(_keys.attribution(gene), {})
    if how.get("gene") != gene:
        raise KeyError(
            f"{gene!r} was not attributed; attributed genes: "
            f"{_validate.listing(how['gene'] for how in known.values())}: "
            f"run stp.tl.attribute(sdata, model, {gene!r}) first"
        )
    return how


def _choose(
    seen: Sequence[_sections.Section], name: str | None, done: NDArray[np.bool_], gene: str
) -> _sections.Section:
    """The section of that name, or the one that was attributed."""
    attributed = [section for section in seen if done[section.rows].any()]
    found = _section.choose(attributed if name is None else seen, name)
    if found not in attributed:
        raise KeyError(
            f"{gene!r} was not attributed in section {name!r}, but in "
            f"{_validate.listing(section.name for section in attributed)}: run "
            f"stp.tl.attribute(sdata, model, {gene!r}, section={name!r}) first"
        )
    return found


def _places(
    predicted: AnnData,
    found: _sections.Section,
    spots: Sequence[str] | None,
    done: NDArray[np.bool_],
) -> list[int]:
    """Positions of spots within the section."""
    there = np.flatnonzero(done[found.rows])
    if spots is None:
        return [int(place) for place in there[:_MOST_TILES]]
    names = [spots] if isinstance(spots, str) else list(spots)
    here = predicted.obs_names[found.rows[there]]
    absent = [name for name in names if name not in here]
    if absent or not names:
        raise KeyError(
            f"no attributed spots {_validate.listing(map(repr, absent))} in section "
            f"{found.name!r}; attributed: {_validate.listing(here, most=4)}"
        )
    return [int(there[here.get_loc(name)]) for name in names]


def _norm(*values: Any) -> Normalize:
    """One scale for all, symmetric around 0."""
    sizes = np.abs(np.concatenate([np.ravel(part) for part in values]))
    end = float(np.nanpercentile(sizes, _ENDS)) or float(np.nanmax(sizes)) or 1.0
    return Normalize(-end, end)


def _draw_context(
    found: _sections.Section,
    values: pd.DataFrame,
    how: dict[str, Any],
    axes: Sequence[Axes] | None,
) -> NDArray[Any]:
    """The section's spots, coloured by the share of each part of the context."""
    here = values.iloc[found.rows]
    parts = {"own tile": here["spot"]}
    subtiles = [name for name in here if name.startswith("subtile")]
    if subtiles:
        parts["sub-tiles"] = here[subtiles].sum(axis=1, skipna=False)
    if "neighbors" in here:
        parts["neighbours"] = here["neighbors"]
    size = {name: np.nanmean(np.abs(share)) for name, share in parts.items()}
    within, n = _section.limits(found), 1 + len(parts)
    drawn = _section.new_axes(n, within) if axes is None else _section.given_axes(axes, n)
    _section.draw_image(drawn[0], found, within)
    drawn[0].set_title(f"{found.name}: H&E")
    norm = _norm(*parts.values())
    for ax, (name, share) in zip(drawn[1:], parts.items(), strict=True):
        shown = _section.draw_spots(ax, found, share.to_numpy(), norm, cmap=_CMAP)
        of_all = size[name] / (sum(size.values()) or 1)
        ax.set_title(f"{how['gene']}: {name} ({of_all:.0%})")
        ax.set_facecolor("0.85")  # so that shares near 0 are seen
    for ax in drawn:
        _section.frame(ax, within)
    _draw_bar(drawn[-1], shown, how)
    return drawn


def _draw_around(
    predicted: AnnData,
    found: _sections.Section,
    places: list[int],
    how: dict[str, Any],
    axes: Sequence[Axes] | None,
) -> NDArray[Any]:
    """Some spots with their neighbours, each coloured by its share."""
    key, n = _keys.attribution(how["gene"]), len(places)
    own = predicted.obsm[key]["spot"].to_numpy()[found.rows]
    shares = []
    for place in places:
        share = np.full(len(found.rows), np.nan)
        if key in predicted.obsp:
            row = predicted.obsp[key][[found.rows[place]]]
            share[np.searchsorted(found.rows, row.indices)] = row.data
        share[place] = own[place]
        shares.append(share)
    around = [found.centers_um[~np.isnan(share)] for share in shares]
    # all panels are as wide as the widest needs
    rim = 3 * found.radius_um.max()
    half = rim + max(
        np.abs(near - found.centers_um[place]).max()
        for near, place in zip(around, places, strict=True)
    )
    square = np.zeros(2), np.ones(2)
    drawn = _section.new_axes(n, square) if axes is None else _section.given_axes(axes, n)
    norm, edge = _norm(*shares), np.array(found.shape_yx[::-1]) * found.mpp
    for ax, place, share in zip(drawn, places, shares, strict=True):
        low, high = found.centers_um[place] - half, found.centers_um[place] + half
        _section.draw_image(ax, found, (np.clip(low, 0, edge), np.clip(high, 0, edge)))
        widths = np.where(np.isnan(share), 0, np.where(np.arange(len(share)) == place, 2, 0.8))
        shown = _section.draw_spots(
            ax, found, share, norm, cmap=_CMAP, edgecolors="black", linewidths=widths
        )
        _section.frame(ax, (low, high))
        ax.set_title(f"{how['gene']}: {predicted.obs_names[found.rows[place]]}")
    _draw_bar(drawn[-1], shown, how)
    return drawn


def _draw_tiles(
    predicted: AnnData,
    found: _sections.Section,
    places: list[int],
    how: dict[str, Any],
    axes: Sequence[Axes] | None,
) -> NDArray[Any]:
    """Tiles, and below them what their pixels add."""
    tile_px, n = int(how["tile_px"]), len(places)
    if axes is None:
        size = 2.6 * n + 1.2, 5.6
        _, drawn = plt.subplots(2, n, figsize=size, layout="constrained", squeeze=False)
    else:
        drawn = _section.given_axes(axes, 2 * n).reshape(2, -1)
    stored = predicted.obsm[_keys.attribution(how["gene"])]
    maps = stored[found.rows[places]].toarray().reshape(n, tile_px, tile_px)
    norm = _norm(maps)
    tiles = _section.tiles_of(found, places, tile_um=float(how["tile_um"]), tile_px=tile_px)
    for k, tile, extent in tiles:
        _section.show(drawn[0, k], tile, extent)
        drawn[0, k].set_title(predicted.obs_names[found.rows[places[k]]])
        drawn[1, k].imshow(tile.mean(0), extent=extent, cmap="gray", vmin=-255, vmax=255)
        # what adds nothing lets the tile through
        seen = np.clip(np.abs(maps[k]) / norm.vmax, 0, 1)
        shown = drawn[1, k].imshow(maps[k], extent=extent, cmap=_CMAP, norm=norm, alpha=seen)
        drawn[1, k].set_title(f"{how['gene']}: {maps[k].sum():+.2f}")
        drawn[1, k].set_xlabel("µm")
    _draw_bar(drawn[1, -1], shown, how)
    return np.asarray(drawn)


def _draw_bar(ax: Axes, shown: Any, how: dict[str, Any]) -> None:
    label = f"share of the prediction\n({how['units']})"
    _section.draw_bar(ax, shown, label, extend="both", extendfrac=0.03)
