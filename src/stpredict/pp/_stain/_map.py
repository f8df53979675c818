"""Map pixels from one stain to another, chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpredict.pp._stain._fit import LEAST_DENSITY, SectionStain, white_balance
from stpredict.tiles import WHITE

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray
    from squidpy.experimental.im import StainReference

#: RGB to the cone responses LMS, and their logarithm to lαβ: Reinhard et al., IEEE Comput. Graph.
#: Appl. 21 (2001), 34, equations 4 and 6, after Ruderman et al., J. Opt. Soc. Am. A 15 (1998).
_RGB_TO_LMS = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
)
_LMS_TO_LAB = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])


def map_image(level: da.Array, source: SectionStain, reference: StainReference) -> da.Array:
    """Map an image (3, y, x) uint8 to the reference, lazily."""
    meta = np.empty((0, 0, 0), np.uint8)
    options = {"source": source, "reference": reference, "dtype": np.uint8, "meta": meta}
    return level.rechunk({0: -1}).map_blocks(_map_chunk, **options)  # all channels in a chunk


def _map_chunk(
    image: NDArray[np.uint8], *, source: SectionStain, reference: StainReference
) -> NDArray[np.uint8]:
    balanced = white_balance(image, source.white)
    transfer = transfer_colours if reference.method == "reinhard" else transfer_dyes
    mapped = transfer(balanced, source.stain, reference)
    return np.rint(np.clip(mapped, 0, WHITE)).astype(np.uint8)


def transfer_dyes(
    rgb: NDArray[np.float32], source: StainReference, reference: StainReference
) -> NDArray[np.float32]:
    """Give both dyes the reference's colour and strength; unstained pixels stay white."""
    strength = np.append(reference.max_concentrations / source.max_concentrations, 1.0)
    # unmix the dyes, scale their amounts, and mix them with the colours of the reference; the third
    # column, which is orthogonal to both, carries what is neither dye
    operator = reference.stain_matrix @ np.diag(strength) @ np.linalg.pinv(source.stain_matrix)
    mixed = _multiply(operator, np.log((WHITE + 1) / (rgb + 1)))  # optical density
    return (WHITE + 1) * np.exp(-mixed) - 1


def transfer_colours(
    rgb: NDArray[np.float32], source: StainReference, reference: StainReference
) -> NDArray[np.float32]:
    """Give tissue the reference's means and deviations in lαβ; pale pixels change less."""
    lab = _multiply(_LMS_TO_LAB, np.log(_multiply(_RGB_TO_LMS, rgb) + 1))
    # a channel without variation would be divided by 0
    ratio = reference.sigma / np.maximum(source.sigma, 1e-6)
    shift = reference.mu - ratio * source.mu
    lab = (lab * ratio[:, None, None] + shift[:, None, None]).astype(np.float32)
    lms = np.exp(_multiply(np.linalg.inv(_LMS_TO_LAB), lab)) - 1
    mapped = np.clip(_multiply(np.linalg.inv(_RGB_TO_LMS), lms), 0, WHITE)
    density = np.log((WHITE + 1) / (rgb + 1)).mean(axis=0)
    share = np.clip(density / LEAST_DENSITY, 0, 1)  # 0 on glass, which stays white
    return np.asarray(share * mapped + (1 - share) * rgb, dtype=np.float32)


def _multiply(matrix: NDArray[np.floating], image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply the channels (3, y, x) of an image by a matrix (3, 3)."""
    return np.tensordot(matrix.astype(np.float32), image, axes=1)
