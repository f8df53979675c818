"""Fitted models behind LazySlide's protocol of feature predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

from stpredict import _runtime, _validate
from stpredict._sdata._links import link_sections
from stpredict.models._stack import StackInputs, first_base, leaves
from stpredict.training import Inputs, pad_neighbors, standardize_sections

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from stpredict.models._rows import RowInputs, RowModel

_PREDICT = "use stp.pp.prepare and stp.tl.predict on the slide instead"


@dataclass(eq=False)
class FeaturePredictor:
    """A fitted model that LazySlide's ``tl.feature_prediction`` runs; see `Model`."""

    fitted: RowModel
    mpp: float | None  # µm per pixel of the coordinates
    device: str = "auto"

    @property
    def name(self) -> str:
        """Name of the model; LazySlide writes the table ``<name>_<tiles>``."""
        return f"stpredict_{self.fitted.method}"

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.fitted.network

    @property
    def features_model_name(self) -> str | None:
        """Encoder of the features, by whose name LazySlide looks for them."""
        step = first_base(self.fitted).recipe.embed
        return None if step is None else step.encoder

    @property
    def needs_coords(self) -> bool:
        """Whether the positions of the tiles are read."""
        return any(base.uses_neighbors for base in leaves(self.fitted))

    @property
    def whole_slide(self) -> bool:
        """Whether all tiles of a slide must be given at once.

        Neighbours, ranks in a stack, or features standardised within the slide.
        """
        standardizes = any(base.recipe.standardize == "section" for base in leaves(self.fitted))
        return self.needs_coords or bool(self.fitted.bases) or standardizes

    def get_transform(self) -> None:
        """Transform of images, which are not read."""

    def to(self, device: str | torch.device) -> Self:
        """Choose the device of the predictions."""
        self.device = str(device)
        return self

    def try_compile(self, **options: Any) -> None:
        """Do nothing: the networks are small."""

    def predict(
        self, features: Any, coords: ArrayLike | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Predict each gene, (n,), from features (n, d) and corners of the tiles (n, 2) in px."""
        values = np.asarray(features.toarray() if sp.issparse(features) else features)
        scaler = first_base(self.fitted).inputs
        n_features = 0 if scaler is None else len(scaler.mean)
        if values.ndim != 2 or values.shape[1] != n_features:
            raise ValueError(
                f"features have the shape {values.shape}, the model was trained on (n, "
                f"{n_features}): give those of the encoder {self.features_model_name!r}"
                f"{_fields(first_base(self.fitted))}"
            )
        _validate.finite(values, what="features")
        centers_um = self._centers_um(coords, len(values)) if self.needs_coords else None
        inputs = _inputs(self.fitted, values.astype(np.float32), centers_um)
        device = _runtime.resolve_device(self.device)
        # bfloat16, with which LazySlide may run models, has no counterpart in numpy
        with torch.autocast(device.type, enabled=False):
            predicted, _ = self.fitted.predict_inputs(inputs, spread=False, device=str(device))
        return dict(zip(self.fitted.genes, predicted.T, strict=True))

    def _centers_um(self, coords: ArrayLike | None, n_tiles: int) -> NDArray[np.float64]:
        if coords is None:
            raise ValueError("the model reads neighbours: give the positions of the tiles, coords=")
        positions = np.asarray(coords, dtype=float)
        if positions.shape != (n_tiles, 2):
            raise ValueError(f"coords have the shape {positions.shape}, expected {(n_tiles, 2)}")
        _validate.finite(positions, what="coords")
        # tiles have one size, so that corners lie like centres
        return positions * (self.mpp or 1.0)


def feature_predictor(model: RowModel, *, mpp: float | None) -> FeaturePredictor:
    """Wrap a model that reads one matrix of features; its needs are checked."""
    if mpp is not None:
        _validate.positive("mpp", mpp, unit="µm per pixel")
    bases = leaves(model)
    for base in bases:
        if base.uses_pixels or base.uses_subtiles:
            reads = "the pixels of tiles" if base.uses_pixels else "sub-tiles"
            raise ValueError(
                f"the {base.method} model reads {reads}, not only features: {_PREDICT}"
            )
        step = base.recipe.neighbors
        if base.uses_neighbors and (step is None or not step.rule):
            raise ValueError(
                f"the published model does not report the rule of its neighbours: {_PREDICT}"
            )
    # sub-tiles in the same slot are not read
    steps = [base.recipe.embed and replace(base.recipe.embed, n_subtiles=None) for base in bases]
    if any(step != steps[0] for step in steps):
        names = _validate.listing(dict.fromkeys(base.recipe.embedding for base in bases))
        raise ValueError(
            f"the bases of the stack read several embeddings ({names}), and LazySlide passes one "
            f"matrix: {_PREDICT}"
        )
    predictor = FeaturePredictor(model, mpp)
    if predictor.needs_coords and mpp is None:
        raise ValueError(
            "the model reads neighbours at distances in µm: give the µm per pixel of the slide, "
            "mpp=wsi.properties.mpp"
        )
    return predictor


def _fields(model: RowModel) -> str:
    """Which features of several fields are meant, in words."""
    step = model.recipe.embed
    if step is None or len(step.fields_um) < 2:
        return ""
    return f" on tiles of {step.sides} around the same centres, next to each other"


def _inputs(
    model: RowModel, features: NDArray[np.float32], centers_um: NDArray[np.float64] | None
) -> RowInputs:
    """Inputs of a model on the tiles of one slide, as `stpredict.tl.predict` builds them."""
    if model.bases:
        bases = {name: _inputs(base, features, centers_um) for name, base in model.bases.items()}
        return StackInputs(model, bases, np.full(len(features), "slide"))
    neighbors = None
    if model.uses_neighbors and model.recipe.neighbors is not None and centers_um is not None:
        links, _ = link_sections({"slide": centers_um}, model.recipe.neighbors)
        rows, columns = links["slide"]
        shape = (len(features), len(features))
        neighbors = pad_neighbors(sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape))
    if model.inputs is None:
        raise ValueError(f"the model of {model.method} has no scaling of embeddings")
    if model.recipe.standardize == "section":
        slide = {"slide": np.arange(len(features))}
        features, _ = standardize_sections(features, None, slide, {})
    return Inputs(center=features, scaler=model.inputs, neighbors=neighbors)
