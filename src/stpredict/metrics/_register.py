"""Metrics of the user."""

from __future__ import annotations

import numpy as np

from stpredict._arguments import checked
from stpredict.metrics._scores import METRICS, Metric, Pair


@checked
def register(metric: Metric) -> None:
    """Add a metric per gene to those of `per_gene`, `tl.evaluate` and `tl.cross_validate`.

    Tables and figures of scores then have it, too. A metric that was registered before is replaced.

    Parameters
    ----------
    metric
        Record of the metric, with a ``function``.

    Raises
    ------
    TypeError
        If `metric` is not a :class:`stpredict.metrics.Metric`, or has no function.
    ValueError
        If stpredict has a metric of this name, the name is not letters, digits and ``_``, or the
        function does not return a number for each gene.

    Examples
    --------
    >>> from stpredict import metrics
    >>> def largest_error(pair):
    ...     return abs(pair.difference).max(axis=1)
    >>> metrics.register(
    ...     metrics.Metric(
    ...         "largest_error",
    ...         "largest error",
    ...         better="lower",
    ...         best=0.0,
    ...         needs_units=True,
    ...         function=largest_error,
    ...     )
    ... )
    >>> metrics.per_gene([[0.0], [4.0]], [[1.0], [1.0]], names=["largest_error"])
    {'largest_error': array([3.])}
    """
    if metric.function is None:
        raise TypeError(f"the metric {metric.name!r} has no function: give function=")
    METRICS.check_name(metric.name)
    # two genes with three spots, so that a mean over the wrong axis has the wrong shape
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    scores = np.asarray(metric.function(Pair(values, values[:, ::-1])))
    if scores.shape != (2,) or scores.dtype.kind not in "bif":
        raise ValueError(
            f"the metric {metric.name!r} must return a number for each gene, (n_genes,): for 2 "
            f"genes it returns {scores.dtype} values of shape {scores.shape}"
        )
    METRICS.add(metric)
