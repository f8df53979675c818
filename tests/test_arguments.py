"""Arguments of public functions, checked against their annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pytest

import stpredict as stp
from stpredict._arguments import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike


@checked
def function(
    sdata: Any = None,
    *,
    number: float = 0.0,
    count: int | None = None,
    name: str = "a",
    flag: bool = False,
    method: Literal["fast", "exact"] = "fast",
    alpha: float | Literal["tuned"] = "tuned",
    genes: str | Sequence[str] | None = None,
    sections: Sequence[str] | None = None,
    path: str | Path = "a",
    schedule: stp.tl.Schedule | None = None,
    panels: Sequence[Literal["image", "measured"]] | None = None,
    bases: Mapping[str, Callable[[Any], Any]] | None = None,
    values: ArrayLike = 0,
) -> str:
    """Return the name."""
    return name


@pytest.mark.parametrize(
    "arguments",
    [
        {"number": 1},
        {"number": np.float32(0.5), "count": np.int64(3), "flag": np.True_},
        {"method": "exact", "alpha": 0.5, "path": Path("b")},
        {"genes": "A", "sections": ("S1", "S2")},
        {"genes": pd.Index(["A", "B"]), "sections": np.array(["S1"])},
        {"schedule": stp.tl.Schedule(), "bases": {"a": len}, "values": [[1, 2]]},
        {"panels": ["image"]},
        {"count": None, "genes": None, "schedule": None},
    ],
)
def test_arguments_of_the_annotated_types_are_accepted(arguments):
    assert function(**arguments) == "a"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"number": np.nan}, ValueError, "number must be a finite number: nan"),
        ({"number": True}, ValueError, "number must be a finite number: True"),
        ({"number": "1"}, TypeError, "number must be a finite number, not str: '1'"),
        ({"count": 2.5}, ValueError, "count must be a whole number or None: 2.5"),
        ({"count": True}, ValueError, "count must be a whole number or None: True"),
        ({"name": 3}, TypeError, "name must be a string, not int: 3"),
        ({"flag": 1}, TypeError, "flag must be True or False, not int: 1"),
        ({"method": "slow"}, ValueError, "method='slow' is not one of 'fast', 'exact'"),
        ({"method": None}, TypeError, "method must be one of 'fast', 'exact', not NoneType"),
        ({"alpha": "best"}, ValueError, "alpha='best' is not a finite number or one of 'tuned'"),
        ({"genes": [1]}, TypeError, r"genes must be a string or a list of strings .*: \[1\]"),
        ({"sections": "S1"}, TypeError, r"sections='S1' is one name; give a list: \['S1'\]"),
        ({"sections": {"S1": 1}}, TypeError, "sections must be a list of strings or None"),
        ({"path": 3}, TypeError, "path must be a string or a path, not int: 3"),
        ({"schedule": {}}, TypeError, "schedule must be a Schedule or None, not dict"),
        ({"panels": ["std"]}, ValueError, r"panels=\['std'\] is not a list of one of 'image',"),
        ({"panels": "image"}, TypeError, r"panels='image' is one name; give a list"),
        ({"panels": 3}, TypeError, "panels must be a list of one of .*, not int: 3"),
        ({"values": "anything"}, TypeError, "values must be an array of numbers, not str"),
        ({"bases": [len]}, TypeError, "bases must be a mapping or None, not list"),
    ],
)
def test_other_arguments_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        function(**arguments)


def test_missing_and_unknown_arguments_are_reported_as_by_python():
    with pytest.raises(TypeError, match=r"function\(\) got an unexpected keyword argument 'nam'"):
        function(nam="a")
    with pytest.raises(TypeError, match=r"predict\(\) missing 1 required positional argument"):
        stp.tl.predict(stp.datasets.phantom(size_px=300))
