"""The fitted model: what it consists of, prediction from arrays, and saving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stpredict import _runtime
from stpredict.models._card import card_html, summary
from stpredict.models._feature_predictor import feature_predictor
from stpredict.models._rows import RowModel
from stpredict.models._save import save
from stpredict.training import Pixels, TileStream, pad_features, row_batches

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stpredict.models._feature_predictor import FeaturePredictor

#: Spots predicted at a time. Sub-tiles of that many spots pass through the network at once.
_BATCH = 256


@dataclass(frozen=True, eq=False, repr=False)
class Model(RowModel):
    """A fitted model.

    Made by ``stp.tl.fit_*`` and :func:`stpredict.models.load`. ``repr(model)`` summarises it.

    Attributes
    ----------
    method, context
        Name of the method, and what the network reads next to the spot's own tile.
    network
        The plain torch module, on the CPU, in evaluation mode. Its inputs and outputs are scaled.
    genes
        Names of the predicted genes, in order.
    hyperparameters
        Options of the network, the schedule, the loss and the augmentation.
    recipe
        Recorded steps that make the inputs and the predicted layer. A stack has only those of the
        layer; each of its bases has its own recipe.
    training
        Training sections and groups, what was held out, best epoch, seed, package versions.
    units
        Units of the predictions in words: those of the training layer.
    targets
        What the network predicts, and how it is converted to genes; fitted on training rows.
    history
        Loss of every training step and validation: ``epoch`` and ``step``, both counted from 1,
        ``split`` and ``loss``. Empty for methods that are fitted in one go.
    inputs
        Scaling of the embeddings, fitted on training rows, with ``standardize="section"`` after
        standardising within sections; for stacks, of the bases' predictions.
        For models on pixels, None until :func:`stpredict.tl.calibrate` sets that of the texture
        embedding, by which familiarity is measured.
    subtiles
        Scaling of the sub-tiles' embeddings, if the context has them.
    bases
        Base models of a stack, by name, in the order of the network's inputs.
    calibration
        Errors measured by :func:`stpredict.tl.calibrate`: intervals, reliable genes, familiarity.

    Examples
    --------
    >>> import stpredict as stp
    >>> sdata = stp.datasets.phantom()
    >>> stp.pp.normalize(sdata)
    >>> stp.pp.embed(sdata)
    >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001"], alpha=1.0, context="spot")
    >>> model.predict_array(sdata["table"].obsm["X_texture"][:5]).shape
    (5, 1)
    """

    def __repr__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        return card_html(self)

    def save(self, path: str | Path) -> None:
        """Save to a folder, which :func:`stpredict.models.load` reads.

        New files are written completely before the first old one is replaced: if saving is
        interrupted, the old or the new model is loaded, and the next save cleans up.

        Parameters
        ----------
        path
            Folder to write: ``config.json``, ``model.safetensors``, ``history.csv`` and a model
            card ``README.md``; for a stack, also its bases. These files of an older model are
            replaced, others are kept.

        Raises
        ------
        FileExistsError
            If ``path`` exists and is neither a model nor an empty folder.
        TypeError, ValueError
            If ``path`` is not a string or a path, or a value of the model cannot be saved.
        """
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

        Negative predictions of counts and their logarithm are set to 0.

        Parameters
        ----------
        center
            (n, d) embeddings of the spots' tiles; for models on pixels, the tiles themselves,
            (n, 3, tile_px, tile_px) uint8. Models with ``standardize="section"`` expect features
            that were standardised over all spots of their section, with
            ``scaler = stpredict.targets.Standard.fit(embeddings)`` and ``scaler.transform``;
            neighbours and sub-tiles with the same scaler.
        subtiles
            (n, s, d) embeddings of their sub-tiles, if the context has them; of several fields, the
            width of the first.
        neighbors
            (n, k, d) embeddings of their neighbours, if the context has them.
        neighbor_mask
            (n, k) bool, False for padding. Without it all rows are used.
        device
            ``"auto"``: cuda, then mps, then cpu.

        Returns
        -------
        (n, n_genes) float32.

        Raises
        ------
        ValueError
            If an input is missing, not used, of the wrong shape, or has NaN; if the model is a
            stack.
        """
        if self.bases:
            raise ValueError(
                "a stack has no embeddings of its own: use model.bases[name].predict_array, or "
                "stp.tl.predict with the whole stack"
            )
        if self.uses_pixels:
            pixels = Pixels(np.asarray(center))
            stream = TileStream(
                ((rows, pixels.read(rows)) for rows in row_batches(len(pixels), _BATCH)),
                n_tiles=len(pixels),
                symmetries=self.hyperparameters.average_symmetries,
            )
            return self.predict_inputs(stream, device=device)[0]
        embeddings = {"center": center, "subtiles": subtiles, "neighbors": neighbors}
        tensors = {
            name: self._scaled(name, np.asarray(values))
            for name, values in embeddings.items()
            if values is not None
        }
        # without a mask, the network uses all rows of neighbours
        if neighbor_mask is not None:
            tensors["neighbor_mask"] = torch.from_numpy(np.asarray(neighbor_mask, dtype=bool))
        for name, tensor in tensors.items():
            if len(tensor) != len(center):
                raise ValueError(f"{name} has {len(tensor)} rows, center has {len(center)}")
        torch_device = _runtime.resolve_device(device)
        network = self.network.eval().to(torch_device)
        outputs = np.empty((len(center), self.targets.n_outputs), dtype=np.float32)
        with torch.inference_mode():
            for rows in row_batches(len(center), _BATCH):
                batch = {name: tensor[rows].to(torch_device) for name, tensor in tensors.items()}
                outputs[rows] = network(**batch).cpu().numpy()
        network.cpu()
        return self._genes(outputs)

    def as_feature_predictor(self, *, mpp: float | None = None) -> FeaturePredictor:
        """Wrap the model so that LazySlide runs it on features that it has extracted.

        ``lazyslide.tl.feature_prediction(wsi, model.as_feature_predictor(...), feature_key)``
        writes a table with one row per tile. The features must be those of the encoder that the
        model was trained with, on tiles of the same side in µm; of several fields, next to each
        other. LazySlide passes only numbers, so that this is not checked.

        Parameters
        ----------
        mpp
            µm per pixel of the slide, ``wsi.properties.mpp``; required for models that read
            neighbours, which are found from the positions of the tiles.

        Returns
        -------
        FeaturePredictor
            Object with LazySlide's protocol of feature predictions.

        Raises
        ------
        ValueError
            If the model reads sub-tiles, pixels or several embeddings, or neighbours and ``mpp`` is
            missing or not above 0.

        Examples
        --------
        >>> import stpredict as stp
        >>> sdata = stp.datasets.phantom()
        >>> stp.pp.normalize(sdata)
        >>> stp.pp.embed(sdata)
        >>> model = stp.tl.fit_ridge(sdata, genes=["morphology_001"], alpha=1.0, context="spot")
        >>> predictor = model.as_feature_predictor()
        >>> list(predictor.predict(sdata["table"].obsm["X_texture"]))
        ['morphology_001']
        """
        return feature_predictor(self, mpp=mpp)

    def _scaled(self, name: str, values: NDArray[Any]) -> torch.Tensor:
        """Scale embeddings, checked."""
        # without sub-tiles in the context, the network itself refuses them
        scaler = self.subtiles if name == "subtiles" and self.subtiles else self.inputs
        if scaler is None or self.inputs is None or values.shape[-1] != len(scaler.mean):
            raise ValueError(
                f"{name} has {values.shape[-1]} features, the model was trained on "
                f"{0 if scaler is None else len(scaler.mean)} ({self.recipe.embedding})"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has NaN or infinite values")
        return pad_features(torch.from_numpy(scaler.transform(values)), len(self.inputs.mean))
