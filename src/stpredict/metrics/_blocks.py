"""Large arrays, processed a few genes or a few spots at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import dask.array as da
import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    #: (n_spots, n_genes) values: dense, scipy sparse, or dask.
    Values: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix | da.Array
    #: The same after `as_values`.
    Matrix: TypeAlias = NDArray[Any] | sp.sparray | sp.spmatrix | da.Array

#: Axes of (n_spots, n_genes).
SPOTS, GENES = 0, 1

#: Numbers in one dense block: 8 genes of a million spots, 64 MiB as float64. The metrics hold about
#: ten copies of a block at once.
_BLOCK = 2**23
#: Bytes read at once: lazy arrays and sparse matrices of the other axis are slow in narrow pieces.
_SLAB = 2**30


def as_values(values: Any) -> Any:  # scipy has no types
    """Convert to an array, a CSR or CSC matrix, or a dask array."""
    if sp.issparse(values):
        return values if values.format in ("csr", "csc") else values.tocsr()
    return values if isinstance(values, da.Array) else np.asarray(values)


def check_pair(
    measured: Values, predicted: Values, *, least_spots: int = 2, least_genes: int = 1
) -> tuple[Any, Any]:
    """Require two matrices of the same shape, and return them as `blocks` needs them."""
    measured, predicted = as_values(measured), as_values(predicted)
    if measured.ndim != 2 or measured.shape != predicted.shape:
        shapes = f"{measured.shape} and {predicted.shape}"
        raise ValueError(f"measured and predicted must both be (n_spots, n_genes): {shapes}")
    _check_size(measured.shape, least_spots, least_genes)
    return measured, predicted


def check_values(values: Values, *, name: str = "values") -> Any:
    """Require one matrix with at least two spots, and return it as `blocks` needs it."""
    values = as_values(values)
    if values.ndim != 2:
        raise ValueError(f"{name} must be (n_spots, n_genes): {values.shape}")
    _check_size(values.shape, 2, 1)
    return values


def _check_size(shape: tuple[int, ...], *least: int) -> None:
    for n, n_least, unit in zip(shape, least, ("spot", "gene"), strict=True):
        if n < n_least:
            needed = {1: f"one {unit}", 2: f"two {unit}s", 3: f"three {unit}s"}[n_least]
            raise ValueError(f"a metric needs at least {needed}, found {n}")


def blocks(axis: int, **matrices: Matrix) -> Iterator[tuple[slice, tuple[NDArray[Any], ...]]]:
    """Slices of an axis, with a finite dense block (n_in_block, n_other) of every matrix."""
    # the keyword of a matrix is its name in error messages
    n_other = next(iter(matrices.values())).shape[1 - axis]
    width = max(1, _BLOCK // max(1, n_other))
    for slab in _slabs(list(matrices.values()), axis):
        parts = [_read_slab(matrix, slab, axis) for matrix in matrices.values()]
        for start in range(slab.start, slab.stop, width):
            block = slice(start, min(start + width, slab.stop))
            within = slice(block.start - slab.start, block.stop - slab.start)
            dense = tuple(_dense(part[within]) for part in parts)
            for name, rows in zip(matrices, dense, strict=True):
                n_bad = int(rows.size - np.count_nonzero(np.isfinite(rows)))
                if n_bad:
                    values = name if name == "values" else f"{name} values"
                    among = f"{'spots' if axis == SPOTS else 'genes'} {start} to {block.stop - 1}"
                    raise ValueError(f"{n_bad} {values} are NaN or infinite, among {among}")
            yield block, dense
        del parts, dense  # free the memory before the next slab is read


def score_blocks(
    function: Callable[..., NDArray[np.float64]], axis: int, **matrices: Matrix
) -> NDArray[np.float64]:
    """One score per gene (or spot), from a function of dense blocks (n_in_block, n_other)."""
    scores = np.empty(next(iter(matrices.values())).shape[axis])
    for block, rows in blocks(axis, **matrices):
        scores[block] = function(*rows)
    return scores


def _slabs(matrices: list[Any], axis: int) -> Iterator[slice]:
    """Slices of an axis that are read at once; all of it if every matrix is in memory."""
    n, n_other = matrices[0].shape[axis], matrices[0].shape[1 - axis]
    width = n
    for matrix in matrices:
        # an array in memory is sliced without a copy
        if not isinstance(matrix, np.ndarray):
            width = min(width, max(1, _SLAB // max(1, n_other * matrix.dtype.itemsize)))
    for matrix in matrices:
        if isinstance(matrix, da.Array) and (chunk := max(matrix.chunks[axis])) <= width:
            width -= width % chunk  # slabs end where chunks end: no chunk is computed twice
    for start in range(0, n, max(1, width)):
        yield slice(start, min(start + width, n))


def _read_slab(matrix: Any, slab: slice, axis: int) -> Any:
    """Genes (or spots) as rows of an array or of a CSR matrix, whose rows are fast to slice."""
    part = matrix[slab] if axis == SPOTS else matrix[:, slab]
    part = part.compute() if isinstance(part, da.Array) else part
    part = part if axis == SPOTS else part.T
    return part.tocsr() if sp.issparse(part) else part


def _dense(rows: Any) -> NDArray[Any]:
    # statistics along a row of contiguous memory are faster
    return np.ascontiguousarray(rows.toarray() if sp.issparse(rows) else rows)
