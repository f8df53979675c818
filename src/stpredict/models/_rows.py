"""Predictions of all rows from their inputs, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from stpredict import _runtime
from stpredict.models._config import ModelState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray
    from torch import nn


class RowInputs(Protocol):
    """Inputs of all rows, such as `Inputs`, `TileStream` and `StackInputs`."""

    def walk(
        self, network: nn.Module, device: torch.device, *, members: bool = True
    ) -> Iterator[tuple[NDArray[np.intp], torch.Tensor, torch.Tensor | None]]:
        """Yield rows, their scaled predictions, and those of each member of an ensemble."""


@dataclass(frozen=True, eq=False, repr=False)
class RowModel(ModelState):
    """State of a model that predicts rows; see `Model`."""

    def predict_inputs(
        self,
        inputs: RowInputs,
        *,
        space: Literal["genes", "factors"] = "genes",
        spread: bool = True,
        device: str = "auto",
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Predict every row of a graph of embeddings; each tile is encoded once.

        Parameters
        ----------
        inputs
            Embeddings and neighbours scaled as the model's inputs, a stream of tiles, or the
            inputs of all bases of a stack.
        space
            ``"genes"``, or the factors that the network predicts.
        spread
            Whether to compute the spread over an ensemble.
        device
            ``"auto"``: cuda, then mps, then cpu.

        Returns
        -------
        (n, n_genes) or (n, n_factors) float32, in the units of the training layer, and the standard
        deviation over the members of an ensemble, of the same shape; None for other networks.
        Negative predictions of counts and their logarithm are set to 0, also of each member.
        """
        invert = self._genes if space == "genes" else self.targets.factors
        torch_device = _runtime.resolve_device(device)
        network = self.network.eval().to(torch_device)
        batch_rows, values, deviations = [], [], []
        for rows, outputs, members in inputs.walk(network, torch_device, members=spread):
            batch_rows.append(rows)
            values.append(invert(outputs.cpu().numpy()))
            if members is not None:
                # members are inverted like predictions: the inverse may not be linear
                flat = invert(members.flatten(0, 1).cpu().numpy())
                deviations.append(flat.reshape(*members.shape[:2], -1).std(axis=0))
        network.cpu()
        order = np.argsort(np.concatenate(batch_rows))  # tiles are read in spatial order
        predicted = np.concatenate(values)[order]
        return predicted, np.concatenate(deviations)[order] if deviations else None

    def _genes(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Convert outputs to genes in their units."""
        values = self.targets.inverse(outputs)
        return np.maximum(values, np.float32(0)) if self.nonnegative else values
