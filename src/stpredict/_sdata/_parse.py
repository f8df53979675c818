"""Dataclasses from plain values, with every type checked."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

#: A name that a dataclass does not have is an error, and so are NaN and infinite numbers.
FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)


def parse(kind: type, values: Any) -> Any:
    """Build a dataclass from plain values, checking every type; ValueError names the field."""
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise _invalid(error, kind.__name__) from error


def parse_json(kind: type, values: Any, *, name: str) -> Any:
    """Build a dataclass from values of JSON, without conversion, such as of 1.0 to an integer."""
    try:
        # strict types accept lists for tuples only in text
        return _adapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise _invalid(error, name) from None


def _invalid(error: ValidationError, name: str) -> ValueError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in (name, *first["loc"]))
    value = "" if first["type"] == "missing" else f", found {first['input']!r:.80}"
    return ValueError(f"{place}: {first['msg']}{value}")


@cache  # building one takes longer than reading all steps of a table
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
