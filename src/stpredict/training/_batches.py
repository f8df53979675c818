"""Batches of rows for a DataLoader: in order, shuffled, weighted, or in patches of tissue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.training._data import Batch, Inputs, Measured
    from stpredict.training._pixels import Pixels, TileBatch


class Rows(Dataset[Any]):
    """Batches of some rows."""

    def __init__(
        self, inputs: Inputs | Pixels, measured: Measured, rows: NDArray[np.intp], *, training: bool
    ) -> None:
        self.inputs, self.measured, self.rows = inputs, measured, rows
        self.training = training

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Sequence[int]) -> Batch | TileBatch:
        return self.inputs.batch(
            self.rows[np.asarray(chosen)], self.measured, training=self.training
        )


class PatchSampler(Sampler[int]):
    """Numbers 0 to n in runs of what is near in space, the runs in random order.

    Cells of a patch share most of their neighbours, so a batch of patches has far fewer distinct
    tiles to encode than one of cells drawn one by one.

    Parameters
    ----------
    order
        (n,) the numbers, those near in space near in order.
    patch_size
        Length of a run.
    generator
        Of the random order; where runs start is drawn, too, so that no cells are always together.
    """

    def __init__(
        self, order: NDArray[np.int64], patch_size: int, generator: torch.Generator
    ) -> None:
        self.order, self.patch_size, self.generator = order, patch_size, generator

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        first = int(torch.randint(self.patch_size, (), generator=self.generator))
        starts = range(first, len(self.order), self.patch_size)
        patches = np.split(self.order, list(starts))
        for number in torch.randperm(len(patches), generator=self.generator).tolist():
            yield from patches[number].tolist()


def training_loader(
    inputs: Inputs | Pixels,
    measured: Measured,
    rows: NDArray[np.intp],
    *,
    batch_size: int,
    generator: torch.Generator,
    patch_size: int = 1,
    weights: NDArray[np.float64] | None = None,
) -> DataLoader[Any]:
    """Batches of rows in random order.

    With weights, (n,) of the rows, as many rows are drawn by them, with replacement; with patches,
    rows near in space stay together.
    """
    dataset = Rows(inputs, measured, rows, training=True)
    sampler: Sampler[int]
    if weights is not None:
        sampler = WeightedRandomSampler(
            torch.from_numpy(weights),  # type: ignore[arg-type]
            num_samples=len(rows),
            replacement=True,
            generator=generator,
        )
    elif patch_size > 1 and inputs.order is not None:
        sampler = PatchSampler(_along(inputs.order, rows), patch_size, generator)
    else:
        sampler = RandomSampler(dataset, generator=generator)
    return _load(dataset, sampler, batch_size)


def validation_loader(
    inputs: Inputs | Pixels, measured: Measured, rows: NDArray[np.intp], *, batch_size: int
) -> DataLoader[Any]:
    """Batches of rows in their order, or where it is known, in that of the tissue."""
    if inputs.order is not None:  # neighbours are shared, as in patches
        rows = rows[_along(inputs.order, rows)]
    dataset = Rows(inputs, measured, rows, training=False)
    return _load(dataset, SequentialSampler(dataset), batch_size)


def _along(order: NDArray[np.int64], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Places of some rows, (n_rows,), in an order of all."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return np.argsort(place[rows])


def _load(dataset: Rows, sampler: Sampler[int], batch_size: int) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        sampler=BatchSampler(sampler, batch_size, drop_last=False),
        batch_size=None,  # the sampler gives whole batches
    )
