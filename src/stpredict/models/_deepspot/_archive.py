"""The zip that torch writes: its pickle as bytes, its storages as tensors."""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: A pickle of a published model is some 40 kB and nine bytes for every training step.
MAX_PICKLE = 8 << 20

_PICKLE = "/data.pkl"

#: What zipfile raises on damaged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)

#: Storages by the name that torch gives their type.
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


class Archive:
    """A file that `torch.save` wrote, opened without torch.

    torch stores its records uncompressed. So nothing in the file can claim to be larger than
    the file: a compressed, repeated or overlapping record is refused.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If it is no such zip archive, is damaged, or claims more than it holds.
    """

    def __init__(self, path: Path) -> None:
        self._read_storages: set[str] = set()
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise ValueError(_why_no_zip(path, error)) from error
        try:
            self._root = self._check(path.stat().st_size)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _check(self, n_bytes: int) -> str:
        """Check the records against the size of the file; give the folder they lie in."""
        records = self._zip.infolist()
        names = [record.filename for record in records]
        repeated = len(names) - len(set(names))
        if repeated:
            raise ValueError(f"{repeated} records of the archive are repeated")
        for record in records:
            if (
                record.compress_type != zipfile.ZIP_STORED
                or record.file_size != record.compress_size
                or record.flag_bits & 1
            ):
                raise ValueError(
                    f"record {record.filename!r:.80} is compressed or encrypted, torch writes "
                    f"neither (it claims {record.file_size:,} bytes in {record.compress_size:,})"
                )
        claimed = sum(record.file_size for record in records)
        if claimed > n_bytes:
            raise ValueError(
                f"its records claim {claimed:,} bytes, but the whole file has {n_bytes:,}: it is "
                "truncated or made up"
            )
        found = [name.removesuffix(_PICKLE) for name in names if name.endswith(_PICKLE)]
        if len(found) != 1 or "/" in found[0]:
            raise ValueError(
                f"it is a zip archive, but not of torch.save: {len(found)} records are named "
                f"<name>{_PICKLE}"
            )
        order = self._read(f"{found[0]}/byteorder") if f"{found[0]}/byteorder" in names else b""
        if order not in (b"", sys.byteorder.encode()):
            raise ValueError(
                f"its byte order is {order!r:.20}, that of this machine is {sys.byteorder}"
            )
        return found[0]

    def pickle(self) -> bytes:
        """Read the pickle; it is not interpreted."""
        size = self._zip.getinfo(self._root + _PICKLE).file_size
        if size > MAX_PICKLE:
            raise ValueError(
                f"its pickle has {size:,} bytes; that of a published model is below {MAX_PICKLE:,}"
            )
        return self._read(self._root + _PICKLE)

    def storage(self, kind: str, key: Any, n_elements: Any) -> Tensor:
        """Read a storage as a tensor (n_elements,).

        Raises
        ------
        ValueError
            If there is no such record, it does not hold just that many elements, or it was read
            before: with each read once, tensors take no more memory than the file has bytes.
        """
        name = f"{self._root}/data/{key}" if isinstance(key, str) else ""
        if name not in self._zip.NameToInfo:
            raise ValueError(f"there is no storage {key!r:.80} in the archive")
        if name in self._read_storages:
            raise ValueError(f"storage {key!r:.80} is used by two tensors")
        self._read_storages.add(name)
        dtype = DTYPES[kind]
        size = self._zip.getinfo(name).file_size
        if not size or size != n_elements * dtype.itemsize:
            raise ValueError(
                f"storage {key!r:.80} claims {n_elements!r:.40} elements of {dtype}, its record "
                f"has {size:,} bytes"
            )
        return torch.frombuffer(bytearray(self._read(name)), dtype=dtype)

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except _DAMAGE as error:
            raise ValueError(f"record {name!r:.80} is damaged ({error})") from error


def _why_no_zip(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return f"it is a damaged or truncated zip archive ({error})"
    return (
        "it is no zip archive, as torch.save writes since torch 1.6, and a bare pickle is not "
        "opened. Whoever trusts the file can convert it where DeepSpot is installed: load it there "
        "and torch.save it again"
    )
