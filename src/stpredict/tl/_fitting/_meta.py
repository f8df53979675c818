"""The network of a stack, fitted to what its bases predict of rows they have not seen."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stpredict.models._estimators import fit_linear
from stpredict.models._methods import STACKING
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.nn import LinearSets, losses
from stpredict.targets import Standard
from stpredict.training import Fitted, Inputs, Measured, fit_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stpredict.targets._genes import Genes
    from stpredict.tl._fitting._split import Split
    from stpredict.tl._fitting._task import Values
    from stpredict.training import Schedule


def fit_meta(
    features: NDArray[np.float32],
    values: Values,
    scaled: Genes,
    rows: Split,
    *,
    options: dict[str, Any],
    schedule: Schedule,
    seed: int,
    device: str,
) -> tuple[Fitted, dict[str, Any]]:
    """Fit the network of a stack to what its bases predict, and say what was chosen."""
    scaler = beside(scaled, features.shape[1])
    build = functools.partial(
        STACKING.network, features.shape[1], len(values.genes), context="spot", **options
    )
    aims = scaled.transform(values.dense(np.arange(len(features))))
    if options["meta"] == "mlp":
        fitted = fit_network(
            build,
            Inputs(center=features, scaler=scaler),
            Measured(aims),
            training=rows.training,
            validation=rows.validation,
            loss=losses.make("mse", n_targets=len(values.genes)),
            schedule=schedule,
            seed=seed,
            device=device,
        )
        return fitted, {**vars(schedule), "loss": "mse"}
    network, chosen = build().eval(), {}
    if isinstance(network, LinearSets):
        chosen = fit_linear(
            network,
            scaler.transform(features),
            aims,
            rows.groups,
            alpha="tuned",
            n_components=None,
            seed=seed,
        )
    return Fitted(network, pd.DataFrame(columns=list(HISTORY_COLUMNS)), 0), chosen


def beside(scaled: Genes, n_features: int) -> Standard:
    """Scale predictions, side by side, as the targets are."""
    standard = scaled.standard
    times = n_features // len(standard.mean)
    return Standard(np.tile(standard.mean, times), np.tile(standard.scale, times))
