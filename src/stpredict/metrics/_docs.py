"""Sections of a docstring that all metrics of a pair of arrays share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

_Function = TypeVar("_Function", bound=Callable[..., object])

#: Docstring of every metric of a pair of arrays.
_TEMPLATE = """\
{summary}Parameters
----------
measured, predicted
    (n_spots, n_genes) values each: dense, scipy sparse, or dask; read in blocks, see `per_gene`.

Returns
{returns}

Raises
------
ValueError
    If the shapes differ, a gene (spot) has fewer than two values, or a value is NaN.

Examples
--------
>>> from stpredict import metrics
>>> measured = [[0.0, 4.0], [2.0, 1.0], [4.0, 0.0]]
>>> predicted = [[1.0, 3.0], [2.0, 2.0], [3.0, 0.0]]
>>> metrics.{name}(measured, predicted).round(2)
{example}
"""


def documented(example: str) -> Callable[[_Function], _Function]:
    """Add the sections that all metrics share, with the result of an example that they share."""

    def describe(function: _Function) -> _Function:
        summary, _, returns = inspect.cleandoc(function.__doc__ or "").partition("Returns\n")
        function.__doc__ = _TEMPLATE.format(
            summary=summary, returns=returns, name=function.__name__, example=example
        )
        return function

    return describe
