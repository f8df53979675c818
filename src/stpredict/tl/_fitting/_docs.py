"""Descriptions of the parameters that every fit_* takes, written once."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import TypeVar

_Function = TypeVar("_Function", bound=Callable[..., object])

_SHARED = {
    "rows": """\
    genes
        Genes to predict, by default those of ``var["selected"]``.
    layer
        Layer to predict, for instance ``"ranks"`` (`pp.rank_expression`); None is ``X``.
        Predictions are in its units, and `model.units` names them.
    groups
        Column of ``obs`` whose groups may not be split between training and {held_out}; by
        default the patient where there are several, else the section. With a single group, blocks
        of tissue stand in for groups.
    """,
    "weight": """\
    sample_weight
        Column of ``obs`` with weights (`pp.balance`). In every epoch, as many training spots are
        drawn by them as there are, with replacement. What is held out, the standardisation and
        the ridge regression see every spot once. By default, training does too.
    """,
    "targets": """\
    targets
        What is learnt: ``"genes"``, or ``n_factors`` factors that are found in all genes of the
        layer on the training rows and turned back into genes after prediction: ``"svd"``
        (principal components), ``"nmf"``, ``"autoencoder"`` (as STDL does). What varies together
        is easier to see in an image than single genes.
    n_factors
        Number of factors, by default 8.
    scaling
        Of the genes, before training or before factors are found: ``"standard"``, ``"robust"`` or
        ``"none"``; by default standard for genes and autoencoders, none for SVD, NMF and losses
        that compare the genes of a spot with each other.
    """,
    "loss": """\
    loss
        Name of one of `stpredict.nn.losses.LOSSES`, or a module of yours. Likelihoods of counts
        (``"poisson"``, ``"negative_binomial"``) take ``layer=None`` or a layer of counts, the
        library size as offset, and predict counts per 10,000.
    """,
    "training": """\
    learning_rate, weight_decay
        Of AdamW.
    batch_size
        Spots in a batch.
    max_epochs
        Most epochs.
    patience
        Epochs without a better validation after which training stops.
    """,
    "monitor": """\
    monitor
        What early stopping watches: the validation ``"loss"``; ``"pearson"``, the correlation of
        each target over the held-out spots, averaged by the variance of the targets, which does
        not mind that another section is brighter or darker as a whole; or ``"spearman"``, the
        rank correlation over the (scaled) targets of each held-out spot, averaged over spots.
    """,
    "decay": """\
    decay
        ``"constant"``, or ``"cosine"``: the learning rate falls to 0 over ``max_epochs``.
    """,
    "tiles": """\
    augmentation
        Changes of tiles in training, anew for every batch; ``stp.tl.Augmentation()`` for none.
    average_symmetries
        Predict the mean over the eight flips and right-angle turns of a tile, as ST-Net does; takes
        eight times as long.
    """,
    "seed": """\
    seed
        Same seed, same device, same model.
    """,
    "device": """\
    device
        ``"auto"``: cuda, then mps, then cpu.
    """,
}


def shared(**words: str) -> Callable[[_Function], _Function]:
    """Put the shared descriptions where a docstring has their names in braces, on a line each."""

    def describe(function: _Function) -> _Function:
        lines = []
        for line in inspect.cleandoc(function.__doc__ or "").splitlines(keepends=True):
            name = line.strip()
            if name.startswith("{") and name.endswith("}"):
                line = textwrap.dedent(_SHARED[name[1:-1]])
                for word, value in words.items():
                    line = line.replace(f"{{{word}}}", value)
            lines.append(line)
        function.__doc__ = "".join(lines)
        return function

    return describe
