"""Stacks: models on top of other models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from stpredict.models._methods import STACKING
from stpredict.targets import Standard
from stpredict.targets._high import High, log_odds
from stpredict.training import row_batches

if TYPE_CHECKING:
    from stpredict.models._records import StackNetwork
    from stpredict.models._rows import RowInputs, RowModel
    from stpredict.targets import Targets

_Fitted = TypeVar("_Fitted", bound="RowModel")

#: Spots predicted at a time by the network on top.
_BATCH = 1024


@dataclass(frozen=True)
class StackInputs:
    """Inputs of all bases of a stack, with the same rows."""

    stack: RowModel
    bases: dict[str, RowInputs]  # by name
    sections: NDArray[np.str_]  # (n,) section of each row, within which ranks are taken
    predicted: NDArray[np.float32] | None = None  # (bases, n, g), if the bases have predicted

    def __len__(self) -> int:
        return len(self.sections)

    def predict_bases(self, device: str) -> NDArray[np.float32]:
        """Predictions of all bases, (bases, n, g)."""
        if self.predicted is not None:
            return self.predicted
        return np.stack(
            [
                base.predict_inputs(self.bases[name], spread=False, device=device)[0]
                for name, base in self.stack.bases.items()
            ]
        )

    @torch.inference_mode()
    def walk(
        self, network: Any, device: torch.device, *, members: bool = True
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor, torch.Tensor | None]]:
        """Predict all rows with every base, then, in batches, with the network on top."""
        by_base = combinable(self.predict_bases(str(device)), self.stack.targets)
        # predictions of the bases are in units of genes, the network reads scaled ones
        scaler = cast("Standard", self.stack.inputs)
        values = features_of(by_base, self.sections, meta=_meta(self.stack))
        features = torch.from_numpy(scaler.transform(values))
        n_genes = len(self.stack.genes)
        # the scaling repeats that of the genes for each base
        by_base = Standard(scaler.mean[:n_genes], scaler.scale[:n_genes]).transform(by_base)
        for rows in row_batches(len(self), _BATCH):
            pooled = network.pool(network.encode(features[rows].to(device)))
            # members of a stack are the predictions of its bases, (bases, n, g)
            each = torch.from_numpy(by_base[:, rows]) if members else None
            yield rows, network.head(pooled), each


def combinable(predicted: NDArray[np.float32], targets: Targets) -> NDArray[np.float32]:
    """Predictions of bases as a network combines them: log odds for probabilities."""
    return log_odds(predicted) if isinstance(targets, High) else predicted


def features_of(
    predicted: NDArray[np.float32], sections: NDArray[np.str_], *, meta: str
) -> NDArray[np.float32]:
    """Inputs of the network on top: (bases, n, g) to (n, bases × g), or to mean ranks (n, g)."""
    if meta == "rank_mean":
        return rank_mean(predicted, sections)
    return np.concatenate(list(predicted), axis=1)


def rank_mean(predicted: NDArray[np.float32], sections: NDArray[np.str_]) -> NDArray[np.float32]:
    """Order the spots of each section by their mean rank over the bases, gene by gene.

    (bases, n, g) become (n, g): the values of the mean prediction, in the order of the mean ranks.
    Spots with equal mean ranks share a value.
    """
    mean = predicted.mean(axis=0)
    result = np.empty_like(mean)
    for section in np.unique(sections):
        rows = np.flatnonzero(sections == section)
        # mean ranks give the order of the spots, the mean prediction gives the values
        ranks = rankdata(predicted[:, rows], axis=1).mean(axis=0)
        position = rankdata(ranks, axis=0) - 1
        values = np.sort(mean[rows], axis=0)
        # ties have positions between two values
        below = np.floor(position).astype(np.intp)
        low = np.take_along_axis(values, below, axis=0)
        high = np.take_along_axis(values, np.ceil(position).astype(np.intp), axis=0)
        result[rows] = low + (high - low) * (position - below)
    return result


def is_ranked(model: RowModel) -> bool:
    """Whether a stack compares the spots of a section, so that it needs all of them at once."""
    return bool(model.bases) and _meta(model) == "rank_mean"


def predict_ranked(
    stack: RowModel,
    predicted: NDArray[np.float32],
    sections: NDArray[np.str_],
    columns: Sequence[int],
) -> NDArray[np.float32]:
    """Some genes of a ranked stack, (n, c), from those of its bases, (bases, n, c)."""
    scaler, n = cast("Standard", stack.inputs), len(columns)
    part = replace(
        stack,
        genes=tuple(stack.genes[column] for column in columns),
        targets=stack.targets.subset(columns),
        inputs=Standard(scaler.mean[columns], scaler.scale[columns]),
        network=STACKING.build(n, n, context="spot", options=stack.hyperparameters.network).eval(),
        bases={},  # they have predicted
    )
    inputs = StackInputs(part, {}, sections, predicted)
    return part.predict_inputs(inputs, spread=False, device="cpu")[0]


def check_blockwise(model: RowModel) -> None:
    """Require that only the stack itself ranks the spots of a section, none of its bases."""
    for name, base in model.bases.items():
        if is_ranked(base):
            raise ValueError(
                f"the base {name!r} ranks all spots of a slide, which cannot be done block by "
                "block: use stp.pp.grid, stp.pp.prepare and stp.tl.predict"
            )
        check_blockwise(base)


def with_bases(model: _Fitted) -> list[_Fitted]:
    """A model, and all models that it combines, also those of stacks in it."""
    bases = cast("dict[str, _Fitted]", model.bases)
    return [model, *(part for base in bases.values() for part in with_bases(base))]


def leaves(model: _Fitted) -> list[_Fitted]:
    """The model itself, or all models in a stack that are not stacks."""
    return [part for part in with_bases(model) if not part.bases]


def first_base(model: _Fitted) -> _Fitted:
    """The model itself, or a stack's first base, which embeds tiles for the whole stack."""
    return leaves(model)[0]


def check_bases(model: RowModel) -> None:
    """Require that a stack's bases predict the same as the stack, and that others have no bases."""
    if model.method != STACKING.name:
        if model.bases:
            raise ValueError(f"a model of {model.method} has {len(model.bases)} bases, expected 0")
        return
    if len(model.bases) < 2:
        raise ValueError(f"a stack needs at least two bases, found {len(model.bases)}")
    for name, base in model.bases.items():
        if base.genes != model.genes or base.units != model.units:
            raise ValueError(f"base {name!r} predicts other genes or units than the stack")
    n_inputs = len(cast("Standard", model.inputs).mean)
    n_predictions = len(model.genes) * (1 if _meta(model) == "rank_mean" else len(model.bases))
    if n_inputs != n_predictions:
        raise ValueError(
            f"the network of the stack takes {n_inputs} predictions, its bases make {n_predictions}"
        )


def _meta(stack: RowModel) -> str:
    return cast("StackNetwork", stack.hyperparameters.network).meta
