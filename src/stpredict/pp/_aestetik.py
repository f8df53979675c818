"""Clusters of expression, morphology and place together, through AESTETIK."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stpredict._log import quiet
from stpredict._settings import settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Components of each that AESTETIK sees; its time grows with them.
_N_COMPONENTS = 15
#: Passes with dropout that an embedding is the mean of: 15 s for 300 spots on one core, of which
#: AESTETIK's default of 1000 would make minutes.
_N_PASSES = 100


def require_aestetik() -> Any:
    """Import AESTETIK's estimator, or say how to install it."""
    try:
        from aestetik import AESTETIK
    except ImportError as error:
        raise ImportError(
            "morphology= clusters with AESTETIK, which is not installed: it comes with the extra "
            '"aestetik", or with python -m pip install aestetik'
        ) from error
    return AESTETIK


def joint_clusters(
    expression: NDArray[np.float32],
    morphology: NDArray[np.float32],
    place: NDArray[np.float64],
    *,
    n_clusters: int,
    seed: int,
) -> NDArray[np.intp]:
    """Cluster the spots of one section, counted from 0, (n,).

    Parameters
    ----------
    expression, morphology
        Principal components, (n, d) and (n, e).
    place
        Column and row of every spot in its array, (n, 2) whole numbers.
    n_clusters
        How many clusters to look for.
    seed
        AESTETIK seeds with it the random generators of the process.
    """
    spots = AnnData(obs=pd.DataFrame(place, columns=["x_array", "y_array"]).rename(str))
    spots.obsm["X_pca_transcriptomics"] = expression[:, :_N_COMPONENTS]
    spots.obsm["X_pca_morphology"] = morphology[:, :_N_COMPONENTS]
    model = require_aestetik()(
        n_cluster=n_clusters,
        clustering_method="kmeans",
        num_repeats_predict=_N_PASSES,
        random_state=seed,
    )
    with contextlib.ExitStack() as stack:
        # its trainer writes a log into the working folder
        stack.enter_context(contextlib.chdir(stack.enter_context(tempfile.TemporaryDirectory())))
        for logger in ("lightning.pytorch", "lightning.fabric"):
            stack.enter_context(quiet(logger))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Lightning's, on how AESTETIK calls it
        if settings.verbosity == 0:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        labels = model.fit_predict(spots)
    return np.unique(labels, return_inverse=True)[1].astype(np.intp)
