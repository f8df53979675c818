"""Embeddings of whole sections in temporary files, for features standardised within sections."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

import numpy as np
from sklearn.preprocessing import StandardScaler

from stpredict import _keys
from stpredict._sdata._provenance import record_step
from stpredict.training import reserve, scaler_of_blocks, scaler_of_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from stpredict._sdata._spot_table import SpotTable
    from stpredict._sdata._steps import EmbedStep
    from stpredict.targets import Standard


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Array in a temporary file; only rows that are being read or written are in memory."""

    file: IO[bytes]
    shape: tuple[int, ...]

    @classmethod
    def create(cls, files: ExitStack, shape: tuple[int, ...]) -> StoredRows:
        """Reserve space for float32 numbers, as long as the stack is open."""
        # on POSIX the file has no name, so that nothing remains of it even if the process is killed
        file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 closed by the stack
        reserve(file, 4 * int(np.prod(shape)), what="features")
        return cls(file, shape)

    def write(self, rows: NDArray[np.intp], values: NDArray[np.float32]) -> None:
        """Write some rows."""
        self._map()[rows] = values

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Copy some rows."""
        return np.array(self._map()[rows])

    def _map(self) -> NDArray[np.float32]:
        # mapped for each use: touched pages count as memory until they are unmapped
        return np.memmap(self.file, dtype=np.float32, mode="r+", shape=self.shape)


class StoredSections:
    """Embeddings of all spots by slot, and the scalers of their sections."""

    def __init__(self, files: ExitStack, n_obs: int) -> None:
        self._files, self._n_obs = files, n_obs
        self._rows: dict[str, StoredRows] = {}  # by slot, also of sub-tiles
        self._steps: dict[str, EmbedStep] = {}
        self._moments: dict[str, dict[str, StandardScaler]] = {}
        self.scalers: dict[str, dict[str, Standard]] = {}

    def add(self, rows: NDArray[np.intp], block: SpotTable, slot: str) -> None:
        """Store an embedding of some rows, each of which is stored once."""
        for key in {slot, _keys.subtiles(slot)} & set(block.table.obsm):
            values = block.table.obsm[key]
            if key not in self._rows:
                shape = (self._n_obs, *values.shape[1:])
                self._rows[key] = StoredRows.create(self._files, shape)
            self._rows[key].write(rows, values)
        self._steps[slot] = block.steps.embed[slot]
        moments = self._moments.setdefault(slot, {})
        for section, inside in block.section_rows.items():
            moments.setdefault(section, StandardScaler()).partial_fit(
                block.table.obsm[slot][inside]
            )

    def finish(self, spots: SpotTable, registered: Iterable[str]) -> None:
        """Compute the scalers, also of features that are in memory."""
        for slot, by_section in self._moments.items():
            self.scalers[slot] = {
                section: scaler_of_blocks(moments, section=section)
                for section, moments in by_section.items()
            }
        for slot in registered:
            values = spots.table.obsm[slot]
            self.scalers[slot] = {
                section: scaler_of_section(values[rows], section=section)
                for section, rows in spots.section_rows.items()
            }

    def fill(self, block: SpotTable, rows: NDArray[np.intp], slot: str) -> None:
        """Copy an embedding of some rows to the table that holds them."""
        for key in {slot, _keys.subtiles(slot)} & set(self._rows):
            block.table.obsm[key] = self._rows[key].read(rows)
        record_step(block.table, self._steps[slot], slot=slot)

    def with_scalers(self, block: SpotTable) -> SpotTable:
        """A part of the sections that knows the scalers of whole sections."""
        return replace(block, section_scalers=self.scalers)


@contextmanager
def stored_sections(n_obs: int) -> Iterator[StoredSections]:
    """Store the embeddings of whole sections until the context is left."""
    with ExitStack() as files:
        yield StoredSections(files, n_obs)
