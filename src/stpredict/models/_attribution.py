"""Integrated gradients of a model's prediction of one gene, over embeddings and over pixels."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from stpredict import _runtime, _validate
from stpredict.models._methods import EXTERNAL, METHODS
from stpredict.nn._tiles import N_SYMMETRIES, symmetry
from stpredict.training import row_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from stpredict.models._model import Model
    from stpredict.training import Inputs

#: Embeddings and pixels that pass through a network with gradients at a time: less than 1 GB for
#: networks of the default width.
_EMBEDDINGS, _PIXELS = 1 << 14, 1 << 19

#: Relative error of a prediction due to rounding in float32.
_ROUNDING = 1e-5


class Attributed(NamedTuple):
    """Contributions to the predictions of one gene, in the units of the prediction."""

    rows: NDArray[np.intp]  # (n,) rows of the table
    # embeddings: of the spot's own tile (n,), its sub-tiles (n, s) and its neighbours (n, k), as
    # far as the network reads them; tiles: of their pixels (n, h, w)
    shares: tuple[NDArray[np.float32], ...]
    predicted: NDArray[np.float32]  # (n,) from the inputs
    baseline: NDArray[np.float32]  # (n,) from the baseline

    @property
    def total(self) -> NDArray[np.float32]:
        """Sum of all contributions to each spot, (n,)."""
        return np.sum([share.reshape(len(share), -1).sum(1) for share in self.shares], axis=0)


def require_captum() -> None:
    """Raise unless captum is installed."""
    if find_spec("captum") is None:
        raise ImportError('stp.tl.attribute needs captum: pip install "stpredict[explain]"')


def check(model: Model, gene: str) -> int:
    """Require predictions with a gradient, of a gene that varies; returns the gene's index."""
    if model.bases:
        bases = ", ".join(model.bases)
        raise ValueError(f"a stack cannot be attributed: use one of model.bases[name] ({bases})")
    if model.method in EXTERNAL:
        raise ValueError(f"a model of {model.method} cannot be attributed here")
    if not METHODS[model.method].has_gradient:
        differentiable = ", ".join(name for name, each in METHODS.items() if each.has_gradient)
        raise ValueError(
            f"predictions of {model.method!r} have no gradient, those of {differentiable} have one"
        )
    if gene not in model.genes:
        genes = _validate.listing(model.genes)
        raise KeyError(f"the model does not predict {gene!r}; genes: {genes}")
    index = model.genes.index(gene)
    if model.targets.constant[index]:
        raise ValueError(f"{gene!r} was constant in training and cannot be attributed")
    return index


def of_embeddings(
    model: Model, inputs: Inputs, rows: NDArray[np.intp], *, place: int, n_steps: int, device: str
) -> Iterator[Attributed]:
    """Attribute a gene to the context of some spots, in batches, from the mean embedding."""
    torch_device = _runtime.resolve_device(device)
    network = _frozen(model, torch_device)
    names = ["center"]
    names += ["subtiles"] * model.uses_subtiles + ["neighbors"] * model.uses_neighbors
    n_tiles = 1 + sum(0 if x is None else x.shape[1] for x in (inputs.subtiles, inputs.neighbors))
    batch_size = max(1, _EMBEDDINGS // n_tiles)

    def predict(*tensors: torch.Tensor) -> torch.Tensor:
        # if there are neighbours, the last tensor is their mask
        arguments = dict(zip((*names, "neighbor_mask"), tensors, strict=False))
        return model.targets.gene(network(**arguments), place)

    for part in row_batches(len(rows), max(1, batch_size // n_steps)):
        batch = rows[part]
        embeddings, mask = [inputs.tiles(batch)], []
        if (subtiles := inputs.subtiles_of(batch)) is not None:
            embeddings.append(subtiles)
        if inputs.neighbors is not None:
            embeddings.append(inputs.tiles(inputs.neighbors[batch].clip(min=0)))
            mask.append(torch.from_numpy(inputs.neighbors[batch] >= 0).to(torch_device))
        yield _integrate(
            predict,
            batch,
            tuple(tensor.to(torch_device) for tensor in embeddings),
            0.0,  # the mean training embedding, after scaling
            fixed=tuple(mask),
            sum_over=-1,
            n_steps=n_steps,
            batch_size=batch_size,
        )


def of_tiles(
    model: Model,
    tiles: Iterable[tuple[NDArray[np.intp], torch.Tensor]],
    *,
    place: int,
    n_steps: int,
    device: str,
) -> Iterator[Attributed]:
    """Attribute a gene to the pixels of tiles, (b, 3, h, w) uint8, from a tile of white glass."""
    torch_device = _runtime.resolve_device(device)
    network = _frozen(model, torch_device)
    # the attributed prediction is that of predict: the mean over flips and turns
    turns = range(N_SYMMETRIES if model.hyperparameters.average_symmetries else 1)

    def predict(pixels: torch.Tensor) -> torch.Tensor:
        outputs = [network(symmetry(pixels, k)) for k in turns]
        return model.targets.gene(torch.stack(outputs).mean(0), place)

    for rows, batch in tiles:
        pixels = batch.to(torch_device) / 255
        yield _integrate(
            predict,
            rows,
            (pixels,),
            1.0,  # white glass
            sum_over=1,
            n_steps=n_steps,
            batch_size=max(1, _PIXELS // (len(turns) * batch.shape[-1] ** 2)),
        )


def largest_gap(parts: list[Attributed], *, spread: float) -> float:
    """Largest relative difference between the sum of contributions and prediction minus baseline.

    It is relative to the spread of predictions where that is larger: spots close to the baseline
    would otherwise have very large gaps.
    """
    predicted, baseline, total = (
        np.concatenate([getattr(part, name) for part in parts]).astype(np.float64)
        for name in ("predicted", "baseline", "total")
    )
    difference = predicted - baseline
    least = max(spread, _ROUNDING * np.abs(predicted).max(), 1e-30)
    return float((np.abs(total - difference) / np.maximum(np.abs(difference), least)).max())


def _frozen(model: Model, device: torch.device) -> torch.nn.Module:
    """A copy of the network whose weights need no gradient."""
    return copy.deepcopy(model.network).eval().requires_grad_(False).to(device)


def _integrate(
    predict: Callable[..., torch.Tensor],
    rows: NDArray[np.intp],
    tensors: tuple[torch.Tensor, ...],
    start: float,
    *,
    fixed: tuple[torch.Tensor, ...] = (),
    sum_over: int,
    n_steps: int,
    batch_size: int,
) -> Attributed:
    """Integrate gradients from one value to the inputs, and sum them over one dimension."""
    from captum.attr import IntegratedGradients

    baselines = tuple(torch.full_like(tensor, start) for tensor in tensors)
    with torch.no_grad():
        predicted, baseline = (predict(*end, *fixed) for end in (tensors, baselines))
    # captum is not typed
    gradients: Any = IntegratedGradients(predict).attribute(
        tensors,
        baselines=baselines,
        additional_forward_args=fixed or None,
        n_steps=n_steps,
        internal_batch_size=max(batch_size, len(rows)),  # captum warns of fewer than rows
    )
    shares = tuple(part.detach().sum(sum_over).float().cpu().numpy() for part in gradients)
    return Attributed(rows, shares, predicted.cpu().numpy(), baseline.cpu().numpy())


def pixel_slot(parts: list[Attributed], n_obs: int) -> sp.csr_matrix:
    """Attributions to the pixels of some rows, (n_obs, h × w)."""
    rows = np.concatenate([part.rows for part in parts])
    values = np.concatenate([part.shares[0].reshape(len(part.rows), -1) for part in parts])
    n_pixels = values.shape[1]
    pixels = np.tile(np.arange(n_pixels), len(rows))
    return sp.csr_matrix(
        (values.ravel(), (np.repeat(rows, n_pixels), pixels)), shape=(n_obs, n_pixels)
    )


def context_slots(parts: list[Attributed], names: pd.Index, inputs: Inputs) -> dict[str, Any]:
    """Attributions to tile, sub-tiles and neighbours, and to each neighbour."""
    rows = np.concatenate([part.rows for part in parts])
    shares = [np.concatenate(share) for share in zip(*(part.shares for part in parts), strict=True)]
    columns = {"spot": shares[0]}
    if inputs.subtiles is not None:
        columns |= {f"subtile_{i}": share for i, share in enumerate(shares[1].T, start=1)}
    slots: dict[str, Any] = {}
    if inputs.neighbors is not None:
        columns["neighbors"] = shares[-1].sum(axis=1)
        is_neighbor = inputs.neighbors[rows] >= 0
        links = np.repeat(rows, is_neighbor.sum(axis=1)), inputs.neighbors[rows][is_neighbor]
        slots["obsp"] = sp.csr_matrix(
            (shares[-1][is_neighbor], links), shape=(len(names), len(names))
        )
    values = np.full((len(names), len(columns)), np.nan, dtype=np.float32)
    values[rows] = np.column_stack(list(columns.values()))
    return {"obsm": pd.DataFrame(values, index=names, columns=list(columns)), **slots}
