"""Published weights of DeepSpot and DeepCell as models of this package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stpredict._arguments import checked
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import EmbedStep, NeighborsStep
from stpredict.encoders._aliases import canonical
from stpredict.encoders._registry import RECORDS
from stpredict.models._deepspot._release import Release, read_release
from stpredict.models._deepspot._released import downloaded, find_source
from stpredict.models._methods import METHODS
from stpredict.models._model import Model
from stpredict.models._records import Hyperparameters, TrainingRecord
from stpredict.models._save import HISTORY_COLUMNS
from stpredict.targets import Standard
from stpredict.targets._genes import Genes


@checked
def from_deepspot(
    weights: str | Path,
    hyperparameters: str | Path | None = None,
    genes: str | Path | Sequence[str] | None = None,
    *,
    embedding: str | None = None,
) -> Model:
    """Open published weights of DeepSpot or DeepCell without executing code from their files.

    The pickled torch modules are not unpickled: a restricted reader extracts tensors, plain
    containers and the parameters of the fitted scaler, and refuses everything else.

    The release does not report the size of its tiles or its neighbourhood graph: run
    :func:`stpredict.pp.embed` and :func:`stpredict.pp.neighbors` as in the paper, then
    :func:`stpredict.tl.predict`. Missing neighbours are ignored; the published code replaces them
    by zeros.

    Released models are downloaded once into ``stp.settings.cache_dir``; the archives of the names
    below have about 1.5 GB. Every file is compared with its hash in each call. Hashes that are not
    part of this package are those that Zenodo lists, requested with the first download.

    Parameters
    ----------
    weights
        Path of ``…final_model.pkl``, or of a folder with one release; or a released model, by its
        name (:func:`stpredict.models.released`), or by its record and path on Zenodo:
        ``"zenodo:<record>/<file>"``, and ``"zenodo:<record>/<folder>"`` for a folder in the
        record's archive.
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
        A model that predicts in the units of its training data. It has no history, and the means of
        its training data only if its scaler has them.

    Raises
    ------
    FileNotFoundError, TypeError
        If a file or a released model does not exist, or an argument is not a path.
    ConnectionError
        If a file cannot be downloaded.
    ValueError
        If the file contains anything but such a model, is damaged, differs from its hash, or its
        parts disagree; if genes are missing; if the encoder is unknown and ``embedding`` is not
        given; if the record or the archive has no such file.

    References
    ----------
    Nonchev et al., DeepSpot: leveraging spatial context for enhanced spatial transcriptomics
    prediction from H&E images, medRxiv 2025.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.from_deepspot("COAD_hest_uni/final_model.pkl")  # doctest: +SKIP
    >>> model = stp.models.from_deepspot("Colon_HEST1K")  # doctest: +SKIP
    >>> stp.tl.predict(sdata, model)  # doctest: +SKIP
    """
    source = find_source(weights)
    with nullcontext(weights) if source is None else downloaded(source) as path:
        release = read_release(path, hyperparameters, genes)
    encoder, slot = _encoder(release, embedding)
    method = METHODS[release.method]
    uses_subtiles, uses_neighbors = method.contexts[release.context]
    n_features, n_genes = release.state["phi.weight"].shape[2], len(release.genes)
    network = method.build(
        n_features,
        n_genes,
        context=release.context,
        options=release.options,
        output_dropout=release.output_dropout,
    )
    network.load_state_dict(release.state)
    # published networks read raw embeddings
    unscaled = Standard(np.zeros(n_features, np.float32), np.ones(n_features, np.float32))
    # numbers that JSON cannot hold become text
    published = {
        name: str(value) if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in release.hyperparameters.items()
    }
    seed = published.get("random_seed")
    return Model(
        method=method.name,
        network=network.eval(),
        genes=release.genes,
        context=release.context,
        hyperparameters=Hyperparameters(network=release.options, published=published),
        recipe=Recipe(
            layer="log1p",
            embedding=slot,
            embed=EmbedStep(encoder=encoder),
            neighbors=NeighborsStep() if uses_neighbors else None,
        ),
        training=TrainingRecord.unreported(
            versions={"torch": torch.__version__},
            seed=seed if type(seed) is int else 0,  # the most that a release reports
            knows_mean=release.knows_mean,
        ),
        units="the release's normalised expression",
        targets=Genes(
            columns=np.arange(n_genes),
            n_fit_genes=n_genes,
            mean=release.targets.mean,
            constant=release.targets.constant,
            standard=release.targets,
            scaling="standard",
        ),
        history=pd.DataFrame(columns=list(HISTORY_COLUMNS)),
        inputs=unscaled,
        subtiles=unscaled if uses_subtiles else None,
    )


def _encoder(release: Release, embedding: str | None) -> tuple[str | None, str]:
    """Name of the encoder in this package, and the slot of its embedding."""
    name = canonical((release.encoder or "").lower())
    # the exact transforms that the release was trained with
    encoder = name if name in RECORDS else None
    if embedding is not None:
        return (encoder if embedding == f"X_{encoder}" else None), embedding
    if encoder is None:
        reported = f"the encoder {release.encoder!r}" if release.encoder else "no encoder"
        raise ValueError(
            f"the release names {reported}, known are {', '.join(RECORDS)}: give "
            "embedding=, the slot in obsm with the embeddings it was trained on"
        )
    return encoder, f"X_{encoder}"
