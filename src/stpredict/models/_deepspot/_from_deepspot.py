"""Published weights of DeepSpot and DeepCell as models of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stpredict import encoders
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import EmbedStep, NeighborsStep
from stpredict.models._deepspot._release import Release, read_release
from stpredict.models._methods import METHODS
from stpredict.models._model import Model
from stpredict.models._records import (
    DeepCellNetwork,
    DeepSpotNetwork,
    Hyperparameters,
    TrainingRecord,
)
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.nn import from_published_state
from stpredict.targets import Standard
from stpredict.targets._genes import Genes

#: Published names of encoders that differ from ours in more than case.
_ENCODERS = {
    "phikonv2": "phikon-v2",
    "hoptimus0": "h-optimus-0",
    "inception": "inception_v3",
}


def from_deepspot(
    weights: str | Path,
    hyperparameters: str | Path | None = None,
    genes: str | Path | Sequence[str] | None = None,
    *,
    embedding: str | None = None,
) -> Model:
    """Open published weights of DeepSpot or DeepCell without executing code from their files.

    The weights are published as pickled torch modules. They are not unpickled: a restricted reader
    extracts tensors, plain containers and the parameters of the fitted scaler, keeps the names of
    expected classes, and refuses everything else.

    The release does not report the size of its tiles or its neighbourhood graph: embed the tiles
    (`pp.embed`) and link the spots (`pp.neighbors`) as in the paper, then run
    :func:`stpredict.tl.predict`. Missing neighbours are ignored here, while the published code
    replaces them by zeros.

    Parameters
    ----------
    weights
        Path of ``…final_model.pkl``, or of a folder with one release.
    hyperparameters
        Path of ``…top_param_overall.yaml``; by default the file next to the weights, if any.
    genes
        Path of ``…info_highly_variable_genes.csv``, whose genes with ``isPredicted`` are the
        outputs; by default the file next to the weights. Or names in the order of the outputs.
    embedding
        Slot in ``obsm`` to predict from; by default that of the encoder in the hyperparameters.

    Returns
    -------
    Model
        A model that predicts in the units of its training data, and can be saved and loaded. It
        has no history, and the means of its training data only if its scaler has them.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If the file contains anything but such a model, is damaged, or its parts disagree; if no
        genes are found; if the encoder is unknown and ``embedding`` is not given.

    References
    ----------
    Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial transcriptomics
    prediction from H&E images, medRxiv 2025.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.from_deepspot("COAD_hest_uni/final_model.pkl")  # doctest: +SKIP
    >>> stp.pp.embed(sdata, "uni", tile_um=55, n_subtiles=3)  # doctest: +SKIP
    >>> stp.pp.neighbors(sdata)  # doctest: +SKIP
    >>> stp.tl.predict(sdata, model)  # doctest: +SKIP
    """
    release = read_release(weights, hyperparameters, genes)
    encoder, slot = _encoder(release, embedding)
    method = METHODS[release.method]
    uses_subtiles, uses_neighbors = method.contexts[release.context]
    options = _options(release)
    network = method.build(
        release.n_features,
        release.n_targets,
        context=release.context,
        options=options,
        output_dropout=release.output_dropout,
    )
    network.load_state_dict(from_published_state(release.state))
    # published networks read raw embeddings
    unscaled = Standard(
        np.zeros(release.n_features, np.float32), np.ones(release.n_features, np.float32)
    )
    return Model(
        method=method.name,
        network=network.eval(),
        genes=release.genes,
        context=release.context,
        hyperparameters=Hyperparameters(
            network=options, published=_json_values(release.hyperparameters)
        ),
        recipe=Recipe(
            layer="log1p",
            embedding=slot,
            embed=EmbedStep(encoder=encoder),
            neighbors=NeighborsStep() if uses_neighbors else None,
        ),
        training=_training(release),
        units="the release's normalised expression",
        targets=Genes(
            columns=np.arange(release.n_targets),
            n_fit_genes=release.n_targets,
            mean=release.targets.mean,
            constant=release.targets.constant,
            standard=release.targets,
            scaling="standard",
        ),
        history=pd.DataFrame(columns=list(HISTORY_COLUMNS)),
        inputs=unscaled,
        subtiles=unscaled if uses_subtiles else None,
    )


def _options(release: Release) -> DeepSpotNetwork | DeepCellNetwork:
    """Sizes of the network, as options of its method."""
    sizes = {name: getattr(release, name) for name in ("n_hidden", "n_phi", "n_rho", "dropout")}
    if release.method == "deepspot":
        return DeepSpotNetwork(**sizes)
    return DeepCellNetwork(**sizes, aggregation=release.aggregation)


def _training(release: Release) -> TrainingRecord:
    """What a release reports of its training: at most the seed."""
    seed = release.hyperparameters.get("random_seed")
    return TrainingRecord(
        sections=(),
        groups=(),
        held_out="not reported",
        n_spots=0,
        n_held_out=0,
        best_epoch=0,
        seed=seed if isinstance(seed, int) else 0,
        versions={"torch": torch.__version__},
        knows_mean=release.knows_mean,
    )


def _encoder(release: Release, embedding: str | None) -> tuple[str | None, str]:
    """Name of the encoder in this package, and the slot of its embedding."""
    published = (release.encoder or "").lower()
    name = _ENCODERS.get(published, published)
    encoder = name if name in encoders.names() else None
    if embedding is not None:
        return (encoder if embedding == f"X_{encoder}" else None), embedding
    if encoder is None:
        reported = f"the encoder {release.encoder!r}" if release.encoder else "no encoder"
        raise ValueError(
            f"the release names {reported}, known encoders are {', '.join(encoders.names())}: give "
            "embedding=, the slot in obsm with the embeddings it was trained on"
        )
    return encoder, f"X_{encoder}"


def _json_values(values: dict[str, Any]) -> dict[str, Any]:
    """Write numbers that JSON cannot hold as text."""
    return {
        name: str(value) if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in values.items()
    }
