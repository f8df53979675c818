"""Records by name, to which users can add their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Record = TypeVar("_Record", bound=_Named)


class Registry(dict[str, _Record]):
    """Records by name, in the order in which they were added."""

    def __init__(self, what: str, records: Iterable[_Record]) -> None:
        super().__init__((record.name, record) for record in records)
        self._what = what  # for messages
        self._built_in = frozenset(self)

    def check_name(self, name: str) -> None:
        """Raise ValueError unless a record of this name can be added.

        The user's own records can be replaced, as when a cell of a notebook runs again.
        """
        # names become columns, slots and fields of files
        if not re.fullmatch(r"[A-Za-z]\w*", name, flags=re.ASCII):
            raise ValueError(
                f"the {self._what} cannot be named {name!r}: use letters, digits and '_', and "
                "start with a letter"
            )
        if name in self._built_in:
            raise ValueError(f"stpredict has a {self._what} {name!r}: give yours another name")

    def add(self, record: _Record) -> None:
        """Add a record."""
        self.check_name(record.name)
        self[record.name] = record
