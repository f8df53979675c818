"""Look of the spots, as the caller of a plotting function chose it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.colors import Normalize

from stpredict import _validate

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


@dataclass(frozen=True)
class SpotStyle:
    """Colours, size and opacity of the spots.

    Attributes
    ----------
    cmap
        Colour map of the values.
    vmin, vmax
        Ends of the colour scale; None for those that fit the values.
    spot_size
        Diameter of the spots in µm; None for the one that is stored with the shapes.
    alpha
        Opacity, from 0 to 1.
    """

    cmap: str | Colormap = "viridis"
    vmin: float | None = None
    vmax: float | None = None
    spot_size: float | None = None
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.spot_size is not None:
            _validate.positive("spot_size", self.spot_size, unit="µm")

    def norm(self, low: float, high: float) -> Normalize:
        """Colour scale between two values, unless other ends were chosen."""
        return Normalize(
            low if self.vmin is None else self.vmin, high if self.vmax is None else self.vmax
        )
