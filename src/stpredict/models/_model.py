"""The fitted model: network, genes, scaling, and the recipe of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from stpredict import _runtime
from stpredict.models._methods import METHODS
from stpredict.training import Inputs, Pixels, TileStream, row_batches

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray
    from torch import nn

    from stpredict.models._ridge import Ridge
    from stpredict.targets import Standard, Targets
    from stpredict.uncertainty import Calibration

#: Spots predicted at a time; with sub-tiles, so many embeddings pass through the network at once.
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted model.

    Made by ``stp.tl.fit_*`` and :func:`stpredict.models.load`.

    Attributes
    ----------
    method
        Name of the method.
    network
        The plain torch module, on the CPU, in evaluation mode. It takes and gives scaled values.
    genes
        Names of the genes predicted, in order.
    context
        What the network looks at beside the spot.
    hyperparameters
        Of the network and of its training.
    recipe
        How the inputs were made: ``embedding`` (slot), ``embed``, ``neighbors``, ``layer`` and
        ``normalize``, each as ``uns["stpredict"]`` of the training data recorded it;
        ``embed["stain"]`` is the reference of normalised images; for a layer of ranks or smoothed
        values, ``layer_steps``, the steps to it in their order. Of models on pixels, ``tiles``
        (``tile_um``, ``tile_px``, ``stain``) instead of the embedding.
    training
        On what it was trained: sections, groups, what was held out, best epoch, seed, versions.
    units
        Of the predictions, in words: those of the layer trained on.
    targets
        What the network predicts, and how that becomes genes; fitted on training rows.
    inputs
        Scaling of the embeddings, fitted on training rows.
    history
        Loss of every training step and validation: ``epoch``, ``step``, ``split``, ``loss``. Empty
        for methods that are not trained step by step.
    ridge
        The baseline: ridge regression on the same embedding and rows. None of released weights.
    subtiles
        Scaling of the sub-tiles' embeddings, where the context has them.
    bases
        The models that a stack stands on, each with its own recipe; their predictions are what
        its network takes in.
    calibration
        What :func:`stpredict.tl.calibrate` learnt of the model's errors.

    Examples
    --------
    >>> import stpredict as stp
    >>> model = stp.models.load("deepspot_her2")  # doctest: +SKIP
    >>> model.genes[:3]  # doctest: +SKIP
    """

    method: str
    network: nn.Module
    genes: tuple[str, ...]
    context: str
    hyperparameters: dict[str, Any]
    recipe: dict[str, Any]
    training: dict[str, Any]
    units: str
    targets: Targets
    inputs: Standard
    history: pd.DataFrame = field(repr=False)
    ridge: Ridge | None = None
    subtiles: Standard | None = None
    bases: tuple[Model, ...] = ()
    calibration: Calibration | None = None

    @property
    def uses_subtiles(self) -> bool:
        """Whether the network takes sub-tiles."""
        return METHODS[self.method].contexts[self.context][0]

    @property
    def uses_neighbors(self) -> bool:
        """Whether the network takes neighbours."""
        return METHODS[self.method].contexts[self.context][1]

    @property
    def uses_pixels(self) -> bool:
        """Whether the network takes the pixels of tiles."""
        return "tiles" in METHODS[self.method].recipe

    def save(self, path: str | Path) -> None:
        """Save to a folder, which :func:`stpredict.models.load` reads.

        Written beside its place, then moved there: a folder that exists is whole. An older model
        at that path is replaced; a folder that is no model is not.

        Parameters
        ----------
        path
            Folder to write: ``config.json``, ``model.safetensors``, ``history.csv`` and a model
            card ``README.md``.

        Raises
        ------
        FileExistsError
            If there is something at ``path`` that is not a model.
        """
        from stpredict.models._save import save

        save(self, path)

    def predict_array(
        self,
        center: NDArray[np.floating],
        subtiles: NDArray[np.floating] | None = None,
        neighbors: NDArray[np.floating] | None = None,
        neighbor_mask: NDArray[np.bool_] | None = None,
        *,
        device: str = "auto",
    ) -> NDArray[np.float32]:
        """Predict from embeddings, in the units of the training layer.

        Parameters
        ----------
        center
            (n, d), embeddings of the spots' tiles; of models on pixels, the tiles themselves,
            (n, 3, tile_px, tile_px) uint8.
        subtiles
            (n, s, d), of their sub-tiles; where the context has them.
        neighbors
            (n, k, d), of their neighbours; where the context has them.
        neighbor_mask
            (n, k) bool, False for padding. Without it all rows take part.
        device
            ``"auto"``: cuda, then mps, then cpu.

        Returns
        -------
        (n, n_genes) float32.

        Raises
        ------
        ValueError
            If an input is missing, not used, or of the wrong shape, or has NaN; if the model is a
            stack.
        """
        if self.bases:
            raise ValueError(
                "a stack takes no embeddings of its own, its bases do: predict with "
                "model.bases[…].predict_array, or the whole stack with stp.tl.predict"
            )
        if self.uses_pixels:
            return self._predict_tiles(center, device=device)
        given = {"center": center, "subtiles": subtiles, "neighbors": neighbors}
        scaled: dict[str, torch.Tensor] = {}
        for name, values in given.items():
            if values is not None:
                self._check(name, np.asarray(values))
                scaler = self.subtiles if name == "subtiles" else self.inputs
                scaled[name] = torch.from_numpy((scaler or self.inputs).transform(values))
        if neighbor_mask is not None:
            scaled["neighbor_mask"] = torch.from_numpy(np.asarray(neighbor_mask, dtype=bool))
        for name, tensor in scaled.items():
            if len(tensor) != len(center):
                raise ValueError(f"{name} has {len(tensor)} rows, center has {len(center)}")
        chosen = _runtime.resolve_device(device)
        network = self.network.eval().to(chosen)
        predicted = np.empty((len(center), self.targets.n_outputs), dtype=np.float32)
        with torch.inference_mode():
            for rows in row_batches(len(center), _BATCH):
                batch = {name: tensor[rows].to(chosen) for name, tensor in scaled.items()}
                predicted[rows] = network(**batch).cpu().numpy()
        network.cpu()
        return self.targets.inverse(predicted)

    def predict_inputs(
        self,
        inputs: Inputs | TileStream,
        *,
        space: Literal["genes", "factors"] = "genes",
        spread: bool = True,
        device: str = "auto",
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Predict every row of a graph of embeddings; each tile is encoded once.

        Parameters
        ----------
        inputs
            Embeddings and neighbours, whose scaler is the model's; or tiles as they are read.
        space
            ``"genes"``, or the factors that the network predicts.
        spread
            Whether the spread over an ensemble is wanted.
        device
            ``"auto"``: cuda, then mps, then cpu.

        Returns
        -------
        (n, n_genes) float32, in the units of the training layer, and the standard deviation over
        the members of the network's ensemble, of the same shape, or None where it is none. With
        factors, (n, n_factors).
        """
        invert = self.targets.inverse if space == "genes" else self.targets.factors
        chosen = _runtime.resolve_device(device)
        network = self.network.eval().to(chosen)
        order, predicted, deviation = [], [], []
        for rows, outputs, members in inputs.walk(network, chosen, members=spread):
            order.append(rows)
            predicted.append(invert(outputs.cpu().numpy()))
            if members is not None:
                flat = invert(members.flatten(0, 1).cpu().numpy())
                deviation.append(flat.reshape(*members.shape[:2], -1).std(axis=0))
        network.cpu()
        places = np.argsort(np.concatenate(order))  # tiles are read in spatial order
        values = np.concatenate(predicted)[places]
        return values, np.concatenate(deviation)[places] if deviation else None

    def _predict_tiles(self, tiles: NDArray[Any], *, device: str) -> NDArray[np.float32]:
        pixels = Pixels(np.asarray(tiles))
        stream = TileStream(
            ((rows, pixels.read(rows)) for rows in row_batches(len(pixels), _BATCH)),
            center=np.empty((len(pixels), 0), dtype=np.float32),
            symmetries=self.hyperparameters["average_symmetries"],
        )
        return self.predict_inputs(stream, device=device)[0]

    def _check(self, name: str, values: NDArray[Any]) -> None:
        if values.shape[-1] != len(self.inputs.mean):
            raise ValueError(
                f"{name} has {values.shape[-1]} features, the model was trained on "
                f"{len(self.inputs.mean)} ({self.recipe['embedding']})"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has NaN or infinite values")
