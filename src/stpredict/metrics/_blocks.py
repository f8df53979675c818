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
#: Bytes read at once. Lazy arrays, and sparse matrices stored along the other axis, are slow to
#: read in narrower pieces.
_SLAB = 2**30


def as_values(values: Values) -> Any:
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
        raise ValueError(
            "measured and predicted must both be (n_spots, n_genes): "
            f"{measured.shape} and {predicted.shape}"
        )
    _check_size(measured.shape, least_spots=least_spots, least_genes=least_genes)
    return measured, predicted


def check_values(values: Values) -> Any:
    """Require one matrix with at least two spots, and return it as `blocks` needs it."""
    values = as_values(values)
    if values.ndim != 2:
        raise ValueError(f"values must be (n_spots, n_genes): {values.shape}")
    _check_size(values.shape, least_spots=2, least_genes=1)
    return values


def _check_size(shape: tuple[int, ...], *, least_spots: int, least_genes: int) -> None:
    words = {1: "one", 2: "two", 3: "three"}
    for n, least, unit in ((shape[0], least_spots, "spot"), (shape[1], least_genes, "gene")):
        if n < least:
            plural = "s" if least > 1 else ""
            raise ValueError(f"a metric needs at least {words[least]} {unit}{plural}, found {n}")


def blocks(axis: int, **matrices: Matrix) -> Iterator[tuple[slice, tuple[NDArray[Any], ...]]]:
    """Iterate over genes (or spots), a dense block of every matrix at a time.

    Parameters
    ----------
    axis
        `GENES` or `SPOTS`, the axis to split. A block is complete along the other axis.
    **matrices
        (n_spots, n_genes) each. The keyword is the name in error messages.

    Yields
    ------
    Slice of genes (spots), and for every matrix a contiguous array (n_in_block, n_other) of its
    dtype.

    Raises
    ------
    ValueError
        If a value is NaN or infinite.
    """
    n_other = next(iter(matrices.values())).shape[1 - axis]
    width = max(1, _BLOCK // max(1, n_other))
    for slab in _slabs(list(matrices.values()), axis):
        parts = [_read_slab(matrix, slab, axis) for matrix in matrices.values()]
        for start in range(slab.start, slab.stop, width):
            block = slice(start, min(start + width, slab.stop))
            within = slice(block.start - slab.start, block.stop - slab.start)
            dense = tuple(_dense_rows(part, within, axis) for part in parts)
            for name, rows in zip(matrices, dense, strict=True):
                _check_finite(rows, name, block, axis)
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
    n, n_other = matrices[0].shape[axis], matrices[0].shape[1 - axis]
    width = n
    for matrix in matrices:
        if not isinstance(matrix, np.ndarray):
            width = min(width, max(1, _SLAB // max(1, n_other * matrix.dtype.itemsize)))
    for matrix in matrices:
        if isinstance(matrix, da.Array) and (chunk := max(matrix.chunks[axis])) <= width:
            width -= width % chunk  # slabs end where chunks end: no chunk is computed twice
    for start in range(0, n, max(1, width)):
        yield slice(start, min(start + width, n))


def _read_slab(matrix: Any, slab: slice, axis: int) -> Any:
    part = matrix[slab] if axis == SPOTS else matrix[:, slab]
    if isinstance(part, da.Array):
        part = part.compute()
    if sp.issparse(part):  # the format that is fast to slice along the axis
        return part.tocsr() if axis == SPOTS else part.tocsc()
    return part


def _dense_rows(part: Any, within: slice, axis: int) -> NDArray[Any]:
    rows = part[within] if axis == SPOTS else part[:, within]
    if sp.issparse(rows):
        rows = rows.toarray()
    return np.ascontiguousarray(rows if axis == SPOTS else rows.T)


def _check_finite(rows: NDArray[Any], name: str, block: slice, axis: int) -> None:
    n_bad = int(rows.size - np.count_nonzero(np.isfinite(rows)))
    if n_bad:
        values = name if name == "values" else f"{name} values"
        unit = "genes" if axis == GENES else "spots"
        raise ValueError(
            f"{n_bad} {values} are NaN or infinite, among {unit} {block.start} to {block.stop - 1}"
        )
