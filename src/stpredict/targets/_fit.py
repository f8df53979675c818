"""Fitting of targets, and reading of saved ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpredict import _validate
from stpredict.targets._autoencoder import Latent
from stpredict.targets._base import Targets, matrix
from stpredict.targets._counts import Counts
from stpredict.targets._genes import Genes
from stpredict.targets._nmf import Nmf
from stpredict.targets._saved import Saved, check_columns
from stpredict.targets._scaling import SCALINGS
from stpredict.targets._svd import Svd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

_FACTORS: dict[str, type[Svd] | type[Nmf] | type[Latent]] = {
    "svd": Svd,
    "nmf": Nmf,
    "autoencoder": Latent,
}

_KINDS: dict[str, type[Targets]] = {"genes": Genes, **_FACTORS, "counts": Counts}

#: Names of the kinds of targets.
KINDS = tuple(_KINDS)


def fit(
    kind: str,
    values: Any,
    *,
    columns: ArrayLike,
    n_factors: int | None = None,
    scaling: str = "standard",
    seed: int = 0,
    library: ArrayLike | None = None,
) -> Targets:
    """Fit what a model learns to predict.

    Parameters
    ----------
    kind
        - ``"genes"``: the model's genes themselves.
        - ``"svd"``: the first principal components of all fit genes.
        - ``"nmf"``: non-negative factors of all fit genes [1]_, whose values must be at least 0.
        - ``"autoencoder"``: the code of an autoencoder of all fit genes, STDL's [2]_, trained
          here with a tenth of the training rows held out for early stopping.
        - ``"counts"``: counts of the model's genes, for Poisson and negative binomial losses. The
          network predicts the logarithm of a gene's share of the spot's counts; genes come back
          as expected counts per 10,000.
    values
        (n_rows, n_fit_genes), the training rows of all fit genes, dense or sparse.
    columns
        (n_genes,), places of the model's genes among the fit genes.
    n_factors
        Number of factors, for the kinds that have any.
    scaling
        - ``"standard"``: mean and standard deviation of every gene.
        - ``"robust"``: median, and interquartile range over 1.349, as scikit-learn's
          ``RobustScaler(unit_variance=True)``. A gene found in less than a quarter of the spots
          has a range of 0 and is divided by its standard deviation instead.
        - ``"none"``: genes as they are.

        Factors are made of scaled genes; ``"svd"`` is always centred on the mean, ``"nmf"``
        never. Counts are not scaled.
    seed
        Of the solvers. The global state of torch's random numbers is left as it was.
    library
        (n_rows,), total counts of every training row over all its genes, for ``"counts"``.

    Returns
    -------
    Targets
        Genes that are constant in training take no part in factors, and are always predicted as
        their constant.

    Raises
    ------
    ValueError
        If a name is unknown, values are NaN, infinite, negative (``"nmf"``, ``"counts"``) or no
        whole numbers (``"counts"``), columns are no genes, or ``n_factors`` is more than the data
        allow.

    Notes
    -----
    On HER2ST, fitted on sections C2 to C4, 8 factors of the 1,000 most expressed genes give back
    the measured genes of C5 with a mean correlation of .37 (``"svd"``, ``"nmf"``) and .35
    (``"autoencoder"``; three other settings of its training gave the same).

    Of 10,000 rows by 20,000 genes, a tenth of them not zero, 20 factors take seconds to half a
    minute (``"svd"``) and minutes (``"nmf"``) on one core, within 1 GB. An autoencoder has 100
    times as many weights as there are factors and genes, up to 1,024 times the genes, twice.

    References
    ----------
    .. [1] Lee and Seung, "Learning the parts of objects by non-negative matrix factorization",
       Nature 1999, doi:10.1038/44565
    .. [2] Rubin, "Spatial Transcriptomics Deep Learning", Technion 2020,
       https://github.com/Roy-Rubin/STDL-Project

    Examples
    --------
    >>> import numpy as np
    >>> from stpredict import targets
    >>> rng = np.random.default_rng(0)
    >>> values = rng.normal(size=(100, 3)) @ rng.normal(size=(3, 50))  # 50 genes of 3 programs
    >>> svd = targets.fit("svd", values, columns=[4, 7], n_factors=3)
    >>> svd.outputs
    ('svd_1', 'svd_2', 'svd_3')
    >>> scores = svd.transform(values)  # what a network learns
    >>> scores.shape, svd.inverse(scores).shape
    ((100, 3), (100, 2))
    >>> bool(np.allclose(svd.inverse(scores), values[:, [4, 7]], atol=1e-5))
    True
    """
    _validate.one_of("targets", kind, KINDS)
    _validate.one_of("scaling", scaling, SCALINGS)
    values, columns = _check(values, columns)
    _check_n_factors(kind, n_factors)
    if (library is None) == (kind == "counts"):
        raise ValueError(
            f"targets={kind!r} {'need' if library is None else 'take no'} library=, the total "
            'counts of every training row, which targets="counts" are divided by'
        )
    if library is not None:
        return Counts.fit(values, columns, library=library)
    if n_factors is None:
        return Genes.fit(values, columns, scaling=scaling)
    return _FACTORS[kind].fit(values, columns, n_factors=n_factors, scaling=scaling, seed=seed)


def from_state(config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Targets:
    """Make targets of what :meth:`stpredict.targets.Targets.state` gave.

    Parameters
    ----------
    config
        From JSON.
    tensors
        From safetensors. Nothing is unpickled.

    Returns
    -------
    Targets
        They transform and invert bit-identically to those that were saved.

    Raises
    ------
    ValueError
        If anything is missing, of another type or shape, or not finite.

    Examples
    --------
    >>> import json
    >>> import numpy as np
    >>> from stpredict import targets
    >>> genes = targets.fit("genes", np.array([[1.0, 5.0], [3.0, 6.0]]), columns=[1])
    >>> config, tensors = genes.state()
    >>> again = targets.from_state(json.loads(json.dumps(config)), tensors)
    >>> again.inverse(np.array([[1.0]]))
    array([[6.]], dtype=float32)
    """
    saved = Saved(config, tensors)
    kind = saved.value("kind")
    _validate.one_of("the kind of the saved targets", kind, KINDS)
    return _KINDS[kind]._read(saved, saved.shared())


def _check(values: Any, columns: ArrayLike) -> tuple[Any, NDArray[np.int64]]:
    values, columns = matrix(values), np.asarray(columns)
    if values.shape[0] == 0:
        raise ValueError("there are no training rows to fit targets on")
    _validate.finite(values, what="the matrix of values")
    check_columns(columns, values.shape[1])
    return values, columns.astype(np.int64)


def _check_n_factors(kind: str, n_factors: int | None) -> None:
    if kind not in _FACTORS:
        if n_factors is not None:
            raise ValueError(
                f"n_factors={n_factors!r} is for targets="
                f"{_validate.listing(map(repr, _FACTORS))}; targets={kind!r} have no factors"
            )
    elif (
        isinstance(n_factors, bool) or not isinstance(n_factors, int | np.integer) or n_factors < 1
    ):
        raise ValueError(
            f"targets={kind!r} need n_factors=, a whole number of at least 1: {n_factors!r}"
        )
