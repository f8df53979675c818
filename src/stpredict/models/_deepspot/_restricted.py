"""Read a pickled torch module without unpickling it.

Python's unpickler is not used. A stack machine walks the opcodes and makes plain data: names are
compared with a list (`_inert`) and never imported, and only that list's functions are called.
"""

from __future__ import annotations

import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stpredict.models._deepspot import _inert
from stpredict.models._deepspot._archive import DTYPES, Archive
from stpredict.models._deepspot._inert import Array, DType, Foreign, Name, require

#: Most opcodes and copied items; a model with 500 members and 20,000 genes has 1.5 million.
MAX_WORK = 4_000_000

#: Opcodes whose argument is pushed as it is.
_NUMBERS = frozenset({"BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1"})
_TEXTS = frozenset({"BINBYTES", "BINUNICODE", "SHORT_BINBYTES", "SHORT_BINUNICODE"})
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME"})


def read_module(path: Path) -> Foreign:
    """Read a pickled module as nested plain data with real tensors, without executing it.

    Anything but a file of torch with the names that published models have raises ValueError.
    """
    try:
        with Archive(path) as archive:
            module = _Machine(archive).run(archive.pickle())
    except ValueError as error:
        raise ValueError(f"{path} was refused, nothing in it was executed: {error}") from error
    if not isinstance(module, Foreign):
        raise ValueError(f"{path} holds a {type(module).__name__}, expected a module of DeepSpot")
    return module


class _Machine:
    """A stack machine for the opcodes that torch writes."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.work = 0

    def run(self, data: bytes) -> Any:
        """Walk the opcodes of a pickle; returns the object that it describes."""
        with warnings.catch_warnings():  # Python warns about invalid escapes in damaged text
            warnings.simplefilter("ignore", DeprecationWarning)
            self._walk(data)
        if len(self.stack) != 1 or self.marks:
            raise ValueError(f"its pickle ends with {len(self.stack)} objects instead of one")
        return self.stack[0]

    def _walk(self, data: bytes) -> None:
        # genops only splits the bytes into opcodes and arguments, it makes no objects
        for opcode, argument, position in pickletools.genops(data):
            if opcode.name == "STOP":
                break
            self.work += opcode.name != "BINFLOAT"  # the history of losses has many
            if self.work > MAX_WORK:
                raise ValueError("its pickle makes far more objects than a published model")
            try:
                self._step(opcode.name, argument)
            except (IndexError, KeyError, TypeError, OverflowError) as error:
                message = f"its pickle is damaged at byte {position} ({opcode.name})"
                raise ValueError(message) from error

    def _step(self, name: str, argument: Any) -> None:
        if name in _NUMBERS | _TEXTS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        elif name == "TUPLE":
            items = self._pop_mark()
            self.stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._pop_mark()
            require(type(self.stack[-1]) is list, "APPEND")
            self.stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            self._update(self._pop(2) if name == "SETITEM" else self._pop_mark())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._name(*(argument.split(" ", 1) if name == "GLOBAL" else self._pop(2)))
        elif name not in _IGNORED:
            if name not in _STEPS:
                raise ValueError(f"its pickle has the opcode {name}, which torch does not write")
            _STEPS[name](self)

    def _pop(self, n: int) -> list[Any]:
        # pop raises IndexError where slices would be too short
        return [self.stack.pop() for _ in range(n)][::-1]

    def _spend(self, *values: Any) -> None:
        """Count copied items: through the memo, a few bytes can copy an object many times."""
        sized = (str, bytes, tuple, list, dict, set)
        self.work += sum(len(value) for value in values if isinstance(value, sized))

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def additems(self) -> None:
        items = self._pop_mark()
        require(type(self.stack[-1]) is set, "ADDITEMS")
        require(all(type(item) in (str, int) for item in items), "a set")
        self.stack[-1].update(items)

    def _update(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        require(type(self.stack[-1]) in (dict, OrderedDict), "SETITEMS")
        # hashing deeply nested tuples would take forever
        require(all(type(key) in (str, int) for key in keys), "the key of a dictionary")
        self.stack[-1].update(zip(keys, values, strict=True))

    def _name(self, module: Any, name: Any) -> None:
        require(type(module) is str and type(name) is str, "STACK_GLOBAL")
        global_name = Name(module, name)
        if global_name not in _inert.ALLOWED:
            raise ValueError(f"it names {str(global_name)[:200]!r}, unlike published models")
        self.stack.append(global_name)

    def reduce(self) -> None:
        function, arguments = self._pop(2)
        if not isinstance(function, Name) or function not in _inert.CALLS:
            shown = str(function) if isinstance(function, Name) else type(function).__name__
            raise ValueError(f"it calls {shown!r}, unlike published models")
        require(type(arguments) is tuple, str(function))
        # the functions copy their arguments, and what these contain
        self._spend(arguments, *arguments)
        self.stack.append(_inert.CALLS[function](*arguments))

    def newobj(self) -> None:
        kind, arguments = self._pop(2)
        require(isinstance(kind, Name) and arguments == (), "an object")
        if kind in _inert.MAPPINGS:
            self.stack.append({})
        elif kind in _inert.CLASSES:
            self.stack.append(Foreign(kind))
        else:
            raise ValueError(f"it makes an object of {kind}, unlike published models")

    def build(self) -> None:
        (state,) = self._pop(1)
        built = self.stack[-1]
        if isinstance(built, DType):
            _inert.fill_dtype(built, state)
        elif isinstance(built, Array):
            _inert.fill_array(built, state)
        else:
            self._spend(state)
            is_plain = type(state) is dict and all(type(key) is str for key in state)
            # a state set once cannot be changed through a reference in the memo
            is_new = isinstance(built, Foreign) and not built.state
            require(is_new and is_plain, "the state of an object")
            built.state = state

    def persistent(self) -> None:
        (storage,) = self._pop(1)
        require(type(storage) is tuple and len(storage) == 5, "a storage")
        tag, kind, key, _location, n_elements = storage
        is_plain = type(tag) is str and tag == "storage" and isinstance(kind, Name)
        require(is_plain and type(n_elements) is int, "a storage")
        require(kind.module == "torch" and kind.name in DTYPES, "a storage")
        self.stack.append(self.archive.storage(kind.name, key, n_elements))


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "ADDITEMS": _Machine.additems,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.newobj,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
