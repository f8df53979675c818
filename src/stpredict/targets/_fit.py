"""Fitting and reading of targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stpredict import _validate
from stpredict.targets._autoencoder import Latent
from stpredict.targets._base import Targets
from stpredict.targets._components import ComponentTargets
from stpredict.targets._counts import Counts
from stpredict.targets._genes import Genes
from stpredict.targets._high import High, check_quantile
from stpredict.targets._matrix import Matrix, as_matrix
from stpredict.targets._nmf import Nmf
from stpredict.targets._saved import SavedTargets, check_columns
from stpredict.targets._scaling import SCALINGS
from stpredict.targets._svd import Svd

_FactorKind = type[ComponentTargets | Latent]
_FACTORS: dict[str, _FactorKind] = {"svd": Svd, "nmf": Nmf, "autoencoder": Latent}

_KINDS: dict[str, type[Targets]] = {"genes": Genes, **_FACTORS, "counts": Counts, "high": High}

#: Names of the kinds of targets.
KINDS = tuple(_KINDS)


def fit(
    kind: Literal["genes", "svd", "nmf", "autoencoder", "counts", "high"],
    values: Matrix,
    *,
    columns: ArrayLike,
    n_factors: int | None = None,
    scaling: Literal["standard", "robust", "none"] = "standard",
    seed: int = 0,
    library: ArrayLike | None = None,
    quantile: float | None = None,
) -> Targets:
    """Fit the targets of a model.

    Parameters
    ----------
    kind
        Kind of targets.

        - ``"genes"``: the model's genes.
        - ``"svd"``: the first principal components of all fit genes.
        - ``"nmf"``: non-negative factors of all fit genes [1]_, whose values must be at least 0.
        - ``"autoencoder"``: the code of STDL's autoencoder [2]_ of all fit genes, which holds a
          tenth of the training rows out for early stopping.
        - ``"counts"``: counts of the model's genes, for Poisson and negative binomial losses;
          genes are predicted as expected counts per 10,000.
        - ``"high"``: whether each of the model's genes is above its ``quantile``, as in STDL [2]_;
          genes are predicted as the probability of being high.
    values
        (n_rows, n_fit_genes), training rows of all fit genes, dense or sparse.
    columns
        (n_genes,), index of the model's genes in the fit genes.
    n_factors
        Number of factors, for ``"svd"``, ``"nmf"`` and ``"autoencoder"``.
    scaling
        Scaling of genes, before factors are computed. Counts and ``"high"`` are not scaled.

        - ``"standard"``: mean and standard deviation of each gene.
        - ``"robust"``: median, and interquartile range over 1.349, as in scikit-learn's
          ``RobustScaler(unit_variance=True)``; the standard deviation if the range is 0.
        - ``"none"``: no scaling.

        ``"svd"`` always centres on the mean, ``"nmf"`` never centres.
    seed
        Random seed of the solvers. The global state of torch's random numbers does not change.
    library
        (n_rows,), total counts of each training row over all its genes, for ``"counts"``.
    quantile
        Quantile of the training rows above which a gene is high, for ``"high"``: between 0 and 1.

    Returns
    -------
    Targets
        Fitted targets. Genes that are constant in training are always predicted as their constant.

    Raises
    ------
    ValueError
        If a name is unknown, values or columns are invalid, ``n_factors`` is too large, or
        ``quantile`` is not between 0 and 1.

    Notes
    -----
    On HER2ST, fitted on sections C2 to C4, 8 factors of the 1,000 most expressed genes reproduce
    the measured genes of C5 with a mean correlation of .37 (``"svd"``, ``"nmf"``) and .35
    (``"autoencoder"``). For 10,000 rows by 20,000 genes, a tenth of them non-zero, 20 factors take
    seconds to half a minute (``"svd"``) and minutes (``"nmf"``) on one core, and less than 1 GB.

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
    >>> scores = svd.transform(values)  # targets of a network
    >>> scores.shape, svd.inverse(scores).shape
    ((100, 3), (100, 2))
    >>> bool(np.allclose(svd.inverse(scores), values[:, [4, 7]], atol=1e-5))
    True
    """
    _validate.seed(seed)
    _validate.one_of("targets", kind, KINDS)
    _validate.one_of("scaling", scaling, SCALINGS)
    values, columns = as_matrix(values), np.asarray(columns)
    if values.shape[0] == 0:
        raise ValueError("values have no training rows")
    _validate.finite(values, what="the matrix of values")
    check_columns(columns, values.shape[1])
    columns = columns.astype(np.int64)
    # required for counts, refused for other kinds
    if (library is None) == (kind == "counts"):
        need = "need" if library is None else "take no"
        raise ValueError(f"targets={kind!r} {need} library=, the totals of the training rows")
    if n_factors is not None and kind not in _FACTORS:
        kinds = _validate.listing(map(repr, _FACTORS))
        raise ValueError(f"n_factors={n_factors!r} is only for targets={kinds}, not for {kind!r}")
    if (quantile is None) == (kind == "high"):
        need = "needs" if quantile is None else "takes no"
        raise ValueError(f"targets={kind!r} {need} quantile=, above which a gene is high")
    if quantile is not None:
        check_quantile(quantile)
        return High.fit(values, columns, quantile=quantile)
    if library is not None:
        return Counts.fit(values, columns, library=library)
    if kind == "genes":
        return Genes.fit(values, columns, scaling=scaling)
    _validate.whole_number(f"n_factors for targets={kind!r}", n_factors)
    options = {"n_factors": cast(int, n_factors), "seed": seed}
    return _FACTORS[kind].fit(values, columns, scaling=scaling, **options)


def from_state(config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Targets:
    """Restore targets from :meth:`stpredict.targets.Targets.state`.

    Parameters
    ----------
    config
        Configuration, from JSON.
    tensors
        Arrays, from safetensors. Nothing is unpickled.

    Returns
    -------
    Targets
        Targets that transform and invert bit-identically to the saved ones.

    Raises
    ------
    ValueError
        If a part is missing, of another type or shape, or not finite.

    Examples
    --------
    >>> import json
    >>> import numpy as np
    >>> from stpredict import targets
    >>> genes = targets.fit("genes", np.array([[1.0, 5.0], [3.0, 6.0]]), columns=[1])
    >>> config, tensors = genes.state()
    >>> loaded = targets.from_state(json.loads(json.dumps(config)), tensors)
    >>> loaded.inverse(np.array([[1.0]]))
    array([[6.]], dtype=float32)
    """
    saved = SavedTargets(config, tensors)
    return _KINDS[saved.one_of("kind", KINDS)]._read(saved)
