"""Stacks: models on top of other models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from stpredict.models._methods import STACKING
from stpredict.targets import Standard
from stpredict.training import row_batches

if TYPE_CHECKING:
    from stpredict.models._model import Model

#: Spots at a time.
_BATCH = 1024


@dataclass(frozen=True)
class StackInputs:
    """What the models that a stack stands on take in, all of the same rows.

    Attributes
    ----------
    stack
        The stack.
    parts
        Inputs of each of its bases.
    sections
        (n,), section of each row: ranks are taken within it.
    """

    stack: Model
    parts: tuple[Any, ...]
    sections: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sections)

    @torch.inference_mode()
    def walk(
        self, network: Any, device: torch.device, *, members: bool = True
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor, torch.Tensor | None]]:
        """Predict all rows with every base, then with the network on top, some at a time.

        Gives the rows, what the network predicts of them (n, g), and what each base predicts,
        (bases, n, g), scaled as the network's output is, where that is wanted.
        """
        predicted = np.stack(
            [
                base.predict_inputs(part, spread=False, device=str(device))[0]
                for base, part in zip(self.stack.bases, self.parts, strict=True)
            ]
        )
        scaler = self.stack.inputs
        meta = self.stack.hyperparameters["meta"]
        features = torch.from_numpy(
            scaler.transform(features_of(predicted, self.sections, meta=meta))
        )
        n_genes = len(self.stack.genes)
        each = Standard(scaler.mean[:n_genes], scaler.scale[:n_genes]).transform(predicted)
        for rows in row_batches(len(self), _BATCH):
            pooled = network.pool(network.encode(features[rows].to(device)))
            yield rows, network.head(pooled), torch.from_numpy(each[:, rows]) if members else None


def features_of(
    predicted: NDArray[np.float32], sections: NDArray[np.str_], *, meta: str
) -> NDArray[np.float32]:
    """What the network on top sees of the predictions of all bases.

    Of (bases, n, g) the predictions side by side, (n, bases × g); for ``"rank_mean"``, (n, g).
    """
    if meta == "rank_mean":
        return rank_mean(predicted, sections)
    return np.concatenate(list(predicted), axis=1)


def rank_mean(predicted: NDArray[np.float32], sections: NDArray[np.str_]) -> NDArray[np.float32]:
    """Order the spots of each section by their mean rank over the bases, gene by gene.

    Parameters
    ----------
    predicted
        (bases, n, g).
    sections
        (n,).

    Returns
    -------
    (n, g) float32: within a section, the values of the mean prediction, in the order of the mean
    ranks. Spots of one mean rank share the mean place.
    """
    mean = predicted.mean(axis=0)
    result = np.empty_like(mean)
    for section in np.unique(sections):
        rows = np.flatnonzero(sections == section)
        ranks = rankdata(predicted[:, rows], axis=1).mean(axis=0)
        place = rankdata(ranks, axis=0) - 1
        values = np.sort(mean[rows], axis=0)
        below = np.floor(place).astype(np.intp)
        low = np.take_along_axis(values, below, axis=0)
        high = np.take_along_axis(values, np.ceil(place).astype(np.intp), axis=0)
        result[rows] = low + (high - low) * (place - below)
    return result


def baseline(model: Model, inputs: Any) -> tuple[NDArray[np.float32], float] | None:
    """What ridge regression on the same embedding predicts, (n, g), and its alpha.

    Of a stack, that of its first base that has one; None where there is none.
    """
    if isinstance(inputs, StackInputs):
        found = (baseline(*each) for each in zip(model.bases, inputs.parts, strict=True))
        return next((one for one in found if one is not None), None)
    if model.ridge is None:
        return None
    return model.ridge.predict(model.inputs.transform(inputs.center)), model.ridge.alpha


def described(model: Model, inputs: Any) -> NDArray[np.float32]:
    """Scaled embeddings of the tiles that a model sees, (n, d); of a stack, its first base's.

    Of pixels, the texture encoder's, which are there once the tiles have been read.
    """
    if isinstance(inputs, StackInputs):
        return described(model.bases[0], inputs.parts[0])
    return model.inputs.transform(inputs.center)


def check_bases(model: Model) -> None:
    """Require of a stack that its bases predict what it does, and of others that they have none."""
    if model.method != STACKING.name:
        if model.bases:
            raise ValueError(f"a model of {model.method} stands on no others: {len(model.bases)}")
        return
    if len(model.bases) < 2:
        raise ValueError(f"a stack stands on at least two models, not on {len(model.bases)}")
    for number, base in enumerate(model.bases):
        if base.genes != model.genes or base.units != model.units:
            raise ValueError(
                f"base_{number} predicts other genes, or in other units, than the stack"
            )
    n_seen = 1 if model.hyperparameters["meta"] == "rank_mean" else len(model.bases)
    if len(model.inputs.mean) != n_seen * len(model.genes):
        raise ValueError(
            f"the network of the stack takes {len(model.inputs.mean)} predictions, its bases make "
            f"{n_seen} × {len(model.genes)}"
        )
