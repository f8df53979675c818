"""Batches of rows for a DataLoader: ordered, shuffled, weighted, or in patches of tissue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from stpredict.training._data import Batch, Inputs, Measured
from stpredict.training._pixels import Pixels, TileBatch
from stpredict.training._processes import RankBatches

#: Spots of one section that stay together in a batch, for losses within sections.
_SECTION_RUN = 32


class RowDataset(Dataset["Batch | TileBatch"]):
    """Some rows of the inputs, indexed by whole batches."""

    def __init__(
        self, inputs: Inputs | Pixels, measured: Measured, rows: NDArray[np.intp], *, training: bool
    ) -> None:
        self.inputs, self.measured, self.rows = inputs, measured, rows
        self.training = training

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Sequence[int]) -> Batch | TileBatch:
        rows = self.rows[np.asarray(index)]
        return self.inputs.batch(rows, self.measured, training=self.training)


class PatchSampler(Sampler[int]):
    """Patches of tissue in random order: runs of ``patch_size`` indices in a spatial ``order``.

    Cells of a patch share most of their neighbours, so a batch of patches has far fewer distinct
    tiles to encode than a batch of randomly drawn cells.
    """

    def __init__(
        self, order: NDArray[np.int64], patch_size: int, generator: torch.Generator
    ) -> None:
        self.order, self.patch_size, self.generator = order, patch_size, generator

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        # a random start, so that patches differ between epochs
        first = int(torch.randint(self.patch_size, (), generator=self.generator))
        starts = range(first, len(self.order), self.patch_size)
        patches = np.split(self.order, list(starts))
        for i in torch.randperm(len(patches), generator=self.generator).tolist():
            yield from patches[i].tolist()


class SectionSampler(Sampler[int]):
    """Another sampler's indices, in runs of spots of one section, in random order.

    A batch then has enough spots of a section to compare them, however many sections there are.
    """

    def __init__(
        self, sampler: Sampler[int], section: NDArray[np.int64], generator: torch.Generator
    ) -> None:
        self.sampler, self.section, self.generator = sampler, section, generator

    def __len__(self) -> int:
        return len(self.section)

    def __iter__(self) -> Iterator[int]:
        drawn = np.fromiter(self.sampler, dtype=np.int64)
        runs = [
            spots[start : start + _SECTION_RUN]
            for number in np.unique(self.section)
            if len(spots := drawn[self.section[drawn] == number])
            for start in range(0, len(spots), _SECTION_RUN)
        ]
        for i in torch.randperm(len(runs), generator=self.generator).tolist():
            yield from runs[i].tolist()


def training_loader(
    inputs: Inputs | Pixels,
    measured: Measured,
    rows: NDArray[np.intp],
    *,
    batch_size: int,
    generator: torch.Generator,
    patch_size: int = 1,
    weights: NDArray[np.float64] | None = None,
    within_sections: bool = False,
) -> DataLoader[Batch | TileBatch]:
    """Batches of rows in random order.

    With ``weights``, (n_rows,), as many rows are drawn with replacement. With ``patch_size``, rows
    close in space stay together; with ``within_sections``, some of the same section.
    """
    dataset = RowDataset(inputs, measured, rows, training=True)
    sampler: Sampler[int]
    if weights is not None:
        sampler = WeightedRandomSampler(
            torch.from_numpy(weights),  # type: ignore[arg-type]
            num_samples=len(rows),
            replacement=True,
            generator=generator,
        )
    elif patch_size > 1 and inputs.order is not None:
        sampler = PatchSampler(_spatial_order(inputs.order, rows), patch_size, generator)
    else:
        sampler = RandomSampler(dataset, generator=generator)
    if within_sections and measured.section is not None and not isinstance(sampler, PatchSampler):
        sampler = SectionSampler(sampler, measured.section[rows], generator)
    return _loader(dataset, RankBatches(BatchSampler(sampler, batch_size, drop_last=False)))


def validation_loader(
    inputs: Inputs | Pixels, measured: Measured, rows: NDArray[np.intp], *, batch_size: int
) -> DataLoader[Batch | TileBatch]:
    """Batches of rows in spatial order if there is one, else in the order of the rows."""
    if inputs.order is not None:  # batches share neighbours, as in patches
        rows = rows[_spatial_order(inputs.order, rows)]
    dataset = RowDataset(inputs, measured, rows, training=False)
    # every process validates on all rows
    return _loader(dataset, BatchSampler(SequentialSampler(dataset), batch_size, drop_last=False))


def _spatial_order(order: NDArray[np.int64], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Indices that bring ``rows``, (n_rows,), into the order of all rows."""
    # invert the permutation: rank of each row in the order
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return np.argsort(rank[rows])


def _loader(dataset: RowDataset, batches: Sampler[list[int]]) -> DataLoader[Batch | TileBatch]:
    return DataLoader(dataset, sampler=batches, batch_size=None)  # batches are indices
