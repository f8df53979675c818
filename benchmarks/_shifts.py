"""Other stains, scanners and resolutions, simulated on the tiles of a section."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import torch
from _sections import FIELDS_UM
from PIL import Image
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

import stpredict as stp
from stpredict import _keys, encoders
from stpredict._sdata._spot_table import open_table
from stpredict.pp._stain._fit import SectionStain, to_plain, to_stain
from stpredict.pp._stain._map import map_image, transfer_dyes
from stpredict.tiles import read_fields, resize, tile_windows
from stpredict.training._augment import blur, recolor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from squidpy.experimental.im import StainReference
    from torch import Tensor

    #: Function of tiles (n, 3, h, w) uint8 and their µm per pixel.
    Shift = Callable[[Tensor, float], Tensor]

TILE_PX = 224

#: Colours of haematoxylin and eosin of another laboratory: the reference stain in the published
#: code of Macenko et al., ISBI (2009), 1107.
OTHER_DYES = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
#: Amounts of haematoxylin and eosin, relative to those of the section, and their colours.
STAINS: dict[str, tuple[tuple[float, float], NDArray[np.float64] | None]] = {
    "haematoxylin × 1.6, eosin × 0.7": ((1.6, 0.7), None),
    "haematoxylin × 0.6, eosin × 1.4": ((0.6, 1.4), None),
    "dyes of other colours, × 1.2": ((1.2, 1.2), OTHER_DYES),
}
#: Gain of red, green and blue, gamma, and saturation.
SCANNERS = {
    "darker scanner, pale colours": ((0.98, 0.93, 0.88), 1.5, 0.7),
    "brighter scanner, strong colours": ((0.95, 0.97, 1.0), 0.65, 1.4),
}
#: Factors by which the µm per pixel are recorded wrong.
MPP_ERRORS = {"µm per pixel 10 % too large": 1.1, "µm per pixel 20 % too small": 1 / 1.2}


def colour_shifts(stain: SectionStain) -> dict[str, Shift]:
    """Other stains and scanners for a section of this stain."""
    stains: dict[str, Shift] = {
        name: partial(restain, stain=stain, amounts=amounts, dyes=dyes)
        for name, (amounts, dyes) in STAINS.items()
    }
    scanners = {
        name: partial(rescan, gain=gain, gamma=gamma, saturation=saturation)
        for name, (gain, gamma, saturation) in SCANNERS.items()
    }
    return stains | scanners


def resolution_shifts() -> dict[str, Shift]:
    """Images with fewer details."""
    return {
        "defocus, σ = 2 µm": partial(defocus, sigma_um=2.0),
        "scanned at 2.75 µm per pixel": partial(coarsen, to_mpp=2.75),
        "JPEG of quality 15": partial(compress, quality=15),
    }


def restain(
    tiles: Tensor,
    mpp: float,
    *,
    stain: SectionStain,
    amounts: tuple[float, float],
    dyes: NDArray[np.float64] | None,
) -> Tensor:
    """Change the amounts of both dyes, and their colours."""
    own = stain.stain
    colours = own.stain_matrix[:, :2] if dyes is None else dyes.T
    matrix = np.column_stack([colours, np.cross(colours[:, 0], colours[:, 1])])
    changed = {
        "stain_matrix": matrix / np.linalg.norm(matrix, axis=0),
        "max_concentrations": own.max_concentrations * amounts,
    }
    other = to_stain(to_plain(own) | changed, own.method)
    # uint8 would overflow
    return on_image(tiles, lambda image: transfer_dyes(image.astype(np.float32), own, other))


def rescan(
    tiles: Tensor, mpp: float, *, gain: Sequence[float], gamma: float, saturation: float
) -> Tensor:
    """Change the curve, the white and the saturation of the scanner."""
    x = (tiles.float() / 255) ** gamma * torch.tensor(gain)[:, None, None]
    return to_uint8(recolor(x, torch.tensor([1.0, 1.0, saturation]).repeat(len(x), 1)))


def defocus(tiles: Tensor, mpp: float, *, sigma_um: float) -> Tensor:
    """Blur by a Gaussian."""
    sigma = sigma_um / mpp
    sigmas = torch.full((len(tiles),), sigma)
    return to_uint8(blur(tiles.float() / 255, sigmas, reach=max(1, round(3 * sigma))))


def coarsen(tiles: Tensor, mpp: float, *, to_mpp: float) -> Tensor:
    """Sample at fewer pixels, and enlarge again."""
    side = round(tiles.shape[-1] * mpp / to_mpp)
    return resize(resize(tiles, side), tiles.shape[-1])


def compress(tiles: Tensor, mpp: float, *, quality: int) -> Tensor:
    """Compress as JPEG; tiles of every field on their own, as the levels of a slide file."""

    def compressed(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(tile).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    changed = np.stack([compressed(tile.permute(1, 2, 0).numpy()) for tile in tiles])
    return torch.from_numpy(changed).permute(0, 3, 1, 2).contiguous()


def normalise(
    tiles: Tensor, mpp: float, *, stain: SectionStain, reference: StainReference
) -> Tensor:
    """Give tiles the reference's stain, as `pp.normalize_stain` does with an image."""
    return on_image(
        tiles, lambda image: map_image(da.from_array(image), stain, reference).compute()
    )


def on_image(tiles: Tensor, change: Callable[[NDArray[np.uint8]], NDArray[np.floating]]) -> Tensor:
    """Apply a function of images (3, y, x)."""
    n, _, height, width = tiles.shape
    image = tiles.transpose(0, 1).reshape(3, n * height, width).numpy()
    changed = to_uint8(torch.from_numpy(np.asarray(change(image), dtype=np.float32) / 255))
    return changed.reshape(3, n, height, width).transpose(0, 1).contiguous()


def to_uint8(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round_().to(torch.uint8)


def fit_stain(sdata: SpatialData, shift: Shift | None = None) -> SectionStain:
    """Stain of the only section by `pp.normalize_stain`, from a coarse image, shifted or not."""
    section = open_table(sdata).sections[0]
    level = section.levels[2]
    mpp = section.mpp * section.levels[0].shape[2] / level.shape[2]
    image = torch.from_numpy(np.asarray(level))
    if shift is not None:
        image = shift(image[None], mpp)[0]
    scale = {_keys.um(section.name): Scale([mpp, mpp], axes=("x", "y"))}
    coarse = sdata.subset([section.name, section.image])
    coarse.images[section.image] = Image2DModel.parse(
        image.numpy(), dims=("c", "y", "x"), transformations=scale
    )
    stp.pp.normalize_stain(coarse)
    record: dict[str, Any] = coarse["table"].uns["stpredict"]["normalize_stain"]["stains"]
    own = record[section.name]
    return SectionStain(np.asarray(own["glass"]), to_stain(own, "macenko"))


def read(sdata: SpatialData, *, mpp_error: float = 1.0) -> list[Tensor]:
    """Tiles of every field of the only section, as `pp.embed` reads them."""
    section = open_table(sdata).sections[0]
    mpp = section.mpp * mpp_error
    windows = [
        tile_windows(section.levels, section.centers, side=um / mpp, tile_px=TILE_PX)
        for um in FIELDS_UM
    ]
    shape = (len(section.centers), 3, TILE_PX, TILE_PX)
    fields = [torch.empty(shape, dtype=torch.uint8) for _ in FIELDS_UM]
    for rows, batch in read_fields(windows, tile_px=[TILE_PX] * len(FIELDS_UM)):
        for field, tiles in zip(fields, batch, strict=True):
            field[torch.from_numpy(rows)] = tiles
    return fields


def embed(fields: Sequence[Tensor], *shifts: Shift) -> NDArray[np.float32]:
    """Embed shifted tiles, field by field, (n, n_fields × d)."""
    encoder = encoders.load("texture")
    columns = []
    for field, um in zip(fields, FIELDS_UM, strict=True):
        batches = []
        for tiles in field.split(64):
            for shift in shifts:
                tiles = shift(tiles, um / TILE_PX)
            batches.append(encoder(tiles).numpy())
        columns.append(np.concatenate(batches))
    return np.concatenate(columns, axis=1)
