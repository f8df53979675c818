"""Zip archives written by torch.save: the pickle as bytes, the storages as tensors."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

#: Pickles of published models have about 40 kB, plus nine bytes for each training step.
MAX_PICKLE = 8 << 20

_PICKLE = "/data.pkl"

#: Errors that zipfile raises for damaged archives.
_DAMAGE = (BadZipFile, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)

_NO_ZIP = (
    "it is not a zip archive, the format of torch.save since torch 1.6. If you trust the file, you "
    "can convert it where DeepSpot is installed: load it there and torch.save it again"
)

#: Types of storages, by their names in torch.
DTYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Archive(ZipFile):
    """A file written by `torch.save`, opened without torch; ValueError if it is not one.

    torch stores records uncompressed, so compressed, repeated and overlapping records are refused.
    The memory that a file takes is therefore bounded by its size.
    """

    def __init__(self, path: Path) -> None:
        self._read_storages: set[str] = set()
        try:
            super().__init__(path)
        except _DAMAGE as error:
            with path.open("rb") as file:
                is_zip = file.read(2) == b"PK"
            damaged = f"it is a damaged or truncated zip archive ({error})"
            raise ValueError(damaged if is_zip else _NO_ZIP) from error
        try:
            self._root = self._check(path.stat().st_size)
        except BaseException:
            self.close()
            raise

    def _check(self, n_bytes: int) -> str:
        """Check the records against the size of the file; returns their folder in the archive."""
        records = self.infolist()
        names = [record.filename for record in records]
        repeated = len(names) - len(set(names))
        if repeated:
            raise ValueError(f"{repeated} records of the archive are repeated")
        for record in records:
            if (
                record.compress_type != ZIP_STORED
                or record.file_size != record.compress_size
                or record.flag_bits & 1
            ):
                raise ValueError(
                    f"record {record.filename!r:.80} is compressed or encrypted, which torch never "
                    f"does, and claims {record.file_size:,} bytes"
                )
        # overlapping records would claim the same bytes several times
        claimed = sum(record.file_size for record in records)
        if claimed > n_bytes:
            raise ValueError(
                f"its records claim {claimed:,} bytes, but the whole file has {n_bytes:,}"
            )
        folders = [name.removesuffix(_PICKLE) for name in names if name.endswith(_PICKLE)]
        if len(folders) != 1 or "/" in folders[0]:
            raise ValueError(
                f"it is a zip archive not of torch.save: {len(folders)} records are <name>{_PICKLE}"
            )
        mark = f"{folders[0]}/byteorder"
        byte_order = self._read(mark) if mark in names else b""
        if byte_order not in (b"", sys.byteorder.encode()):
            raise ValueError(f"its byte order is {byte_order!r:.20}, not {sys.byteorder}")
        return folders[0]

    def pickle(self) -> bytes:
        """Bytes of the pickle, which is not interpreted."""
        size = self.getinfo(self._root + _PICKLE).file_size
        if size > MAX_PICKLE:
            raise ValueError(f"its pickle has {size:,} bytes, the limit is {MAX_PICKLE:,}")
        return self._read(self._root + _PICKLE)

    def storage(self, kind: str, key: Any, n_elements: Any) -> Tensor:
        """Read a storage as a tensor (n_elements,)."""
        name = f"{self._root}/data/{key}" if isinstance(key, str) else ""
        if name not in self.NameToInfo:
            raise ValueError(f"the archive has no storage {key!r:.80}")
        # as each is read at most once, tensors take no more memory than the file has bytes
        if name in self._read_storages:
            raise ValueError(f"storage {key!r:.80} is used by two tensors")
        self._read_storages.add(name)
        # the size is compared before anything is allocated
        dtype = DTYPES[kind]
        size = self.getinfo(name).file_size
        if not size or size != n_elements * dtype.itemsize:
            claim = f"{n_elements!r:.40} elements of {dtype}"
            raise ValueError(f"storage {key!r:.80} claims {claim}, its record has {size:,} bytes")
        # a copy, as the bytes themselves are read-only
        return torch.frombuffer(bytearray(self._read(name)), dtype=dtype)

    def _read(self, name: str) -> bytes:
        try:
            return self.read(name)
        except _DAMAGE as error:
            raise ValueError(f"record {name!r:.80} is damaged ({error})") from error
