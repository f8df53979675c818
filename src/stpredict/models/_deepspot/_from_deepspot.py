"""Published weights as models of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stpredict import encoders
from stpredict.models._deepspot._release import Release, read_release
from stpredict.models._methods import METHODS
from stpredict.models._model import Model
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.nn import from_published_state
from stpredict.targets import Standard
from stpredict.targets._genes import Genes

#: Encoders by the names that DeepSpot has for them, where ours differ in more than case.
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
    """Open published weights of DeepSpot or DeepCell, without executing what their files hold.

    They are published as pickled torch modules. A reader of our own takes tensors, plain containers
    and the numbers of the fitted scaler out of the file, keeps the known classes as names, and
    refuses everything else.

    The release does not say how large its tiles were, nor which spots were neighbours: embed them
    (`pp.embed`) and link them (`pp.neighbors`) as its paper did, then run
    :func:`stpredict.tl.predict`. Where a spot has fewer neighbours than others, what is missing
    takes no part; in the published code, zeros take its place.

    Parameters
    ----------
    weights
        The file ``…final_model.pkl``, or a folder with one release.
    hyperparameters
        ``…top_param_overall.yaml``; by default the one beside the weights, if any.
    genes
        ``…info_highly_variable_genes.csv``, of which those with ``isPredicted`` are the outputs;
        by default the one beside the weights. Or names in the order of the outputs.
    embedding
        Slot in ``obsm`` to predict from, by default that of the encoder which the hyperparameters
        name.

    Returns
    -------
    Model
        As any other: it predicts in the units of its training data, is saved and loaded. It has no
        ridge regression to compare with, and no history; nor the means of its training data
        where its scaler has none.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If the file holds anything but such a model, is damaged, or its parts do not fit each
        other; if there are no genes; if the encoder is not said and ``embedding`` not given.

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
    sizes = {name: getattr(release, name) for name in method.hyperparameters}
    network = method.network(
        release.n_features,
        release.n_targets,
        context=release.context,
        output_dropout=release.output_dropout,
        **sizes,
    )
    network.load_state_dict(from_published_state(release.state))
    recipe: dict[str, Any] = {"embedding": slot, "embed": {}, "layer": "log1p"}
    if encoder is not None:
        recipe["embed"]["encoder"] = encoder
    if method.contexts[release.context][1]:
        recipe["neighbors"] = {}
    as_they_are = Standard(
        np.zeros(release.n_features, np.float32), np.ones(release.n_features, np.float32)
    )
    return Model(
        method=method.name,
        network=network.eval(),
        genes=release.genes,
        context=release.context,
        hyperparameters={**sizes, "published": _json(release.hyperparameters)},
        recipe=recipe,
        training={
            "sections": [],
            "groups": [],
            "held_out": "not said",
            "n_spots": 0,
            "n_held_out": 0,
            "best_epoch": 0,
            "sample_weight": None,
            "seed": release.hyperparameters.get("random_seed", 0),
            "versions": {"torch": torch.__version__},
            "knows_mean": release.knows_mean,
        },
        units="the release's normalised expression",
        inputs=as_they_are,
        targets=Genes(
            columns=np.arange(release.n_targets),
            n_fit_genes=release.n_targets,
            mean=release.targets.mean,
            constant=release.targets.constant,
            standard=release.targets,
            scaling="standard",
        ),
        history=pd.DataFrame(columns=list(HISTORY_COLUMNS)),
        subtiles=as_they_are if method.contexts[release.context][0] else None,
    )


def _encoder(release: Release, embedding: str | None) -> tuple[str | None, str]:
    """Find our name of the encoder, and the slot of its embedding."""
    published = (release.encoder or "").lower()
    name = _ENCODERS.get(published, published)
    known = name if name in encoders.names() else None
    if embedding is not None:
        return (known if embedding == f"X_{known}" else None), embedding
    if known is None:
        said = f"names the encoder {release.encoder!r}" if release.encoder else "names no encoder"
        raise ValueError(
            f"the release {said}; encoders: {', '.join(encoders.names())}. Give embedding=, the "
            "slot in obsm with the embeddings it was trained on"
        )
    return known, f"X_{known}"


def _json(values: dict[str, Any]) -> dict[str, Any]:
    """Keep what JSON can hold; a number that is none as text."""
    return {
        name: str(value) if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in values.items()
    }
