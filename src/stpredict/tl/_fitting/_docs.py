"""Descriptions of the parameters that the ``fit_*`` functions share, written once."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import TypeVar

_Function = TypeVar("_Function", bound=Callable[..., object])

_SHARED = {
    "sdata": """\
    sdata
        Training sections, with embeddings (`pp.embed`), a graph for contexts with neighbours
        (`pp.neighbors`), a layer (`pp.normalize`) and genes (`pp.select_genes`) to predict.
    """,
    "sdata_pixels": """\
    sdata
        Training sections with images, a layer (`pp.normalize`) and genes (`pp.select_genes`) to
        predict. Embeddings are not needed.
    """,
    "returns": """\
    Model
        Fitted model; ``sdata`` is not changed.
    """,
    "raises": """\
    KeyError
        If the embedding, the graph, the layer, a gene or a column does not exist.
    ValueError
        If no genes are selected, an option is out of range, the loss does not suit the targets,
        embeddings or the layer contain NaN, weights are NaN or negative, the device is not
        available, or spots are too few.
    """,
    "embedding": """\
    embedding
        Slot in ``obsm`` with the embedding (`pp.embed`, `pp.register_embedding`).
    """,
    "context": """\
    context
        What the method sees next to the spot's own tile: its sub-tiles (``subspot``), its
        neighbours, both, or nothing. Sub-tiles help encoders that resize a tile to their input.
    """,
    "standardize": """\
    standardize
        Rows over which features are standardised: those of ``"training"``, or all spots of each
        ``"section"``, also of a section that is predicted. The latter removes differences of stain
        and scanner, but also those of tissue composition, between sections.
    """,
    "rows": """\
    genes
        Genes to predict, by default those of ``var["selected"]``.
    layer
        Layer to predict, for instance ``"ranks"`` (`pp.rank_expression`); None is ``X``.
        Predictions are in its units (`model.units`).
    groups
        Column of ``obs`` whose groups are not split between training and {held_out}; by default
        the patient if there are several, else the section. A single group is split in blocks.
    """,
    "weight": """\
    sample_weight
        Column of ``obs`` with weights (`pp.balance`), by which training spots are drawn with
        replacement. Held-out spots and the scaling of inputs and targets are not weighted.
    """,
    "targets": """\
    targets
        What is learnt: ``"genes"``, or ``n_factors`` factors of all genes of the layer, turned
        back into genes after prediction: ``"svd"``, ``"nmf"`` or ``"autoencoder"`` (as in STDL).
        Networks and ridge regression also learn ``"high"``: whether each gene is above a quantile
        of the training spots, also of those held out, by default the median. Predictions are then
        probabilities, and are scored against measured values above the same threshold: ``auc`` and
        ``average_precision`` are those of high and low.
    n_factors
        Number of factors, by default 8.
    scaling
        Scaling of the genes; by default ``"standard"`` for genes and autoencoders, ``"none"`` for
        SVD, NMF and losses that compare the genes of a spot with each other.
    """,
    "quantile": """\
    quantile
        Quantile of the training spots for ``targets="high"``, between 0 and 1, by default 0.5.
    """,
    "loss": """\
    loss
        Name of one of `stpredict.nn.losses.LOSSES`, or a module; by default ``"mse"``, and
        ``"bce"`` for ``targets="high"``. Likelihoods of counts
        (``"poisson"``, ``"negative_binomial"``) need ``layer=None`` or a layer of counts, use the
        library size as offset, and predict counts per 10,000.
    """,
    "tiles": """\
    augmentation
        Random changes of the tiles in training; ``stp.tl.Augmentation()`` for none.
    average_symmetries
        Predict the mean over the eight flips and turns of a tile, as ST-Net; eight times slower.
    """,
    "schedule": """\
    schedule
        Length, speed and early stopping of training (:class:`stpredict.tl.Schedule`).
    """,
    "seed": """\
    seed
        Random seed. The same seed on the same device, with the same number of threads, gives the
        same model. With other threads, trained networks differ slightly, since sums are rounded in
        another order; ridge regression and trees do not.
    """,
    "device": """\
    device
        ``"auto"``: cuda, then mps, then cpu.
    """,
    "table_name": """\
    table_name
        Name of the table.
    """,
    "prepared": """\
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom(2)
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.select_genes(sdata, n_top_genes=10)
    >>> stp.pp.embed(sdata)
    >>> stp.pp.neighbors(sdata)
    """,
}


def shared(**words: str) -> Callable[[_Function], _Function]:
    """Insert the shared descriptions where a line of a docstring is their name in braces."""

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
