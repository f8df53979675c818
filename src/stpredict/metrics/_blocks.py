"""Large arrays a few genes, or a few spots, at a time, whatever holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import dask
import dask.array as da
import numpy as np
import scipy.sparse as sp
from dask.base import get_scheduler, named_schedulers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    #: (n_spots, n_genes) numbers: dense, scipy sparse, or dask.
    Values: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix | da.Array

SPOTS, GENES = 0, 1

#: Numbers in one dense block: 8 genes of a million spots, 64 MiB as float64, of which the scores
#: hold about ten copies at once.
_BLOCK = 2**23
#: Bytes that are taken at once from what is costly to read in narrow pieces: lazy arrays, files,
#: sparse matrices that are stored along the other axis.
_SLAB = 2**30
#: Dask's schedulers whose workers write into our memory; clusters and processes do not.
_IN_PROCESS = (named_schedulers["threads"], named_schedulers["sync"])


def as_values(values: Values) -> Any:
    """Keep what can be read in pieces, and make an array of everything else."""
    given: Any = values
    if sp.issparse(given):
        return given if given.format in ("csr", "csc") else given.tocsr()
    return given if isinstance(given, (da.Array, np.memmap)) else np.asarray(given)


def check_pair(
    measured: Any, predicted: Any, *, least_spots: int = 2, least_genes: int = 1
) -> tuple[Any, Any]:
    """Require two matrices of one shape, and give them as `blocks` takes them."""
    measured, predicted = as_values(measured), as_values(predicted)
    if measured.ndim != 2 or measured.shape != predicted.shape:
        raise ValueError(
            "measured and predicted must both be (n_spots, n_genes): "
            f"{measured.shape} and {predicted.shape}"
        )
    _check_size(measured.shape, least_spots=least_spots, least_genes=least_genes)
    return measured, predicted


def check_values(values: Values, *, least_spots: int = 2) -> Any:
    """Require one matrix, and give it as `blocks` takes it."""
    values = as_values(values)
    if values.ndim != 2:
        raise ValueError(f"values must be (n_spots, n_genes): {values.shape}")
    _check_size(values.shape, least_spots=least_spots)
    return values


def _check_size(shape: tuple[int, ...], *, least_spots: int, least_genes: int = 1) -> None:
    words = {1: "one", 2: "two", 3: "three"}
    for n, least, what in ((shape[0], least_spots, "spot"), (shape[1], least_genes, "gene")):
        if n < least:
            raise ValueError(
                f"a score needs at least {words[least]} {what}{'s' * (least > 1)}, found {n}"
            )


def blocks(axis: int, **sides: Any) -> Iterator[tuple[slice, tuple[NDArray[Any], ...]]]:
    """Walk along genes (or spots), and give a dense, contiguous piece of every side.

    Parameters
    ----------
    axis
        `GENES` or `SPOTS`: which of the two is walked along. Every piece is whole along the other.
    **sides
        (n_spots, n_genes) each, by the name that an error calls them by.

    Yields
    ------
    Which genes (spots), and of every side (n_here, n_other), in its own dtype.

    Raises
    ------
    ValueError
        If a value is NaN or infinite.
    """
    shape = next(iter(sides.values())).shape
    width = max(1, _BLOCK // max(1, shape[1 - axis]))
    for slab in _slabs(list(sides.values()), axis):
        loaded = [_load(side, slab, axis) for side in sides.values()]
        n_here = slab.stop - slab.start
        for start in range(0, n_here, width):
            local = slice(start, min(start + width, n_here))
            here = slice(slab.start + local.start, slab.start + local.stop)
            pieces = tuple(_dense(part, local, axis) for part in loaded)
            for name, piece in zip(sides, pieces, strict=True):
                _check_finite(piece, name, here, axis)
            yield here, pieces
        del loaded, pieces  # before the next are read beside them


def apply(
    function: Callable[..., NDArray[np.float64]], axis: int, **sides: Any
) -> NDArray[np.float64]:
    """One number per gene (or spot), from a function of dense blocks (n_here, n_other)."""
    found = np.empty(next(iter(sides.values())).shape[axis])
    for here, pieces in blocks(axis, **sides):
        found[here] = function(*pieces)
    return found


def _slabs(sides: list[Any], axis: int) -> Iterator[slice]:
    n, n_other = sides[0].shape[axis], sides[0].shape[1 - axis]
    costly = [side for side in sides if _is_costly(side, axis)]
    width = n
    if costly:
        width = _SLAB // max(1, n_other * max(side.dtype.itemsize for side in costly))
        for side in costly:
            chunk = max(side.chunks[axis]) if isinstance(side, da.Array) else 1
            width -= width % chunk if chunk <= width else 0
    width = max(1, min(width, n))
    for start in range(0, n, width):
        yield slice(start, min(start + width, n))


def _is_costly(side: Any, axis: int) -> bool:
    if sp.issparse(side):
        return bool(side.format == ("csr", "csc")[1 - axis])
    return isinstance(side, (da.Array, np.memmap))


def _load(side: Any, slab: slice, axis: int) -> Any:
    part = side[slab] if axis == SPOTS else side[:, slab]
    if not _is_costly(side, axis):
        return part
    if isinstance(side, da.Array):
        part = _computed(part)
        if not sp.issparse(part):
            return part
    if sp.issparse(part):
        return part.tocsr() if axis == SPOTS else part.tocsc()
    return np.array(part)  # a file's part, read once


def _computed(part: da.Array) -> Any:
    if not isinstance(part._meta, np.ndarray):  # chunks are sparse matrices
        return sp.bmat(dask.compute(part.to_delayed().tolist())[0])
    if get_scheduler(collections=[part]) not in _IN_PROCESS:
        return part.compute()
    loaded = np.empty(part.shape, dtype=part.dtype)
    da.store(part, loaded, lock=False)  # without a list of all chunks beside it
    return loaded


def _dense(part: Any, local: slice, axis: int) -> NDArray[Any]:
    piece = part[local] if axis == SPOTS else part[:, local]
    if sp.issparse(piece):
        piece = piece.toarray()
    return np.ascontiguousarray(piece if axis == SPOTS else piece.T)


def _check_finite(piece: NDArray[Any], name: str, here: slice, axis: int) -> None:
    n_bad = int(piece.size - np.count_nonzero(np.isfinite(piece)))
    if n_bad:
        what = ("spots", "genes")[axis]
        called = name if name == "values" else f"{name} values"
        raise ValueError(
            f"{n_bad} {called} are NaN or infinite, among {what} {here.start} to {here.stop - 1}"
        )
