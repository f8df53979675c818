"""Integrated gradients of a model's prediction of one gene, over embeddings and over pixels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from stpredict import _runtime, _validate
from stpredict.models._methods import METHODS
from stpredict.nn._tiles import N_SYMMETRIES, symmetry
from stpredict.training import row_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from stpredict.models._model import Model
    from stpredict.training import Inputs

#: Embeddings, and pixels, that pass through a network with a gradient at a time: below 1 GB for
#: networks of the default width.
_EMBEDDINGS, _PIXELS = 1 << 14, 1 << 19

#: Glass, the baseline of tiles.
_WHITE = 1.0

#: Share of a prediction that float32 may lose by rounding.
_ROUNDING = 1e-5


class Attributed(NamedTuple):
    """What the prediction of one gene in some spots is due to, in the units of the prediction.

    Attributes
    ----------
    rows
        (n,) int.
    shares
        Of embeddings, the spot's own tile (n,), its sub-tiles (n, s) and its neighbours (n, k),
        as far as the network takes them; of tiles, their pixels (n, h, w).
    predicted, baseline
        (n,), the prediction from the inputs, and from the baseline.
    """

    rows: NDArray[np.intp]
    shares: tuple[NDArray[np.float32], ...]
    predicted: NDArray[np.float32]
    baseline: NDArray[np.float32]

    @property
    def total(self) -> NDArray[np.float32]:
        """Sum of all shares of each spot, (n,)."""
        return np.sum([share.reshape(len(share), -1).sum(1) for share in self.shares], axis=0)


def require_captum() -> None:
    """Raise unless captum is there."""
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'stp.tl.attribute needs captum: pip install "stpredict[explain]"'
        ) from error


def check(model: Model, gene: str) -> int:
    """Require a model whose predictions have a gradient, of a gene that varies; give its place."""
    able = ", ".join(name for name, method in METHODS.items() if method.has_gradient)
    if model.bases:
        raise ValueError(
            "a stack takes no inputs of its own, its bases do: attribute one of them, "
            f"model.bases[i] ({', '.join(base.method for base in model.bases)}), after "
            "stp.tl.predict with it"
        )
    if not METHODS[model.method].has_gradient:
        raise ValueError(
            f"predictions of {model.method!r} have no gradient; those of {able} have one"
        )
    if gene not in model.genes:
        known = _validate.listing(model.genes)
        raise KeyError(f"the model does not predict {gene!r}; the genes it does: {known}")
    place = model.genes.index(gene)
    if model.targets.constant[place]:
        raise ValueError(
            f"{gene!r} was constant in training and is predicted as {model.targets.mean[place]:g} "
            "whatever the inputs: there is nothing to attribute"
        )
    return place


def of_embeddings(
    model: Model,
    inputs: Inputs,
    rows: NDArray[np.intp],
    *,
    place: int,
    n_steps: int,
    device: str,
) -> Iterator[Attributed]:
    """Attribute a gene to the context of some spots, some at a time.

    The path leads from the mean training embedding, which is 0 once scaled, for the tile, every
    sub-tile and every neighbour at once.
    """
    chosen = _runtime.resolve_device(device)
    network = _frozen(model, chosen)
    names = ["center"]
    names += ["subtiles"] * model.uses_subtiles + ["neighbors"] * model.uses_neighbors
    n_tiles = 1 + sum(0 if x is None else x.shape[1] for x in (inputs.subtiles, inputs.neighbors))
    at_once = max(1, _EMBEDDINGS // n_tiles)

    def predict(*tensors: torch.Tensor) -> torch.Tensor:
        # with neighbours, their mask is the last
        given = dict(zip((*names, "neighbor_mask"), tensors, strict=False))
        return model.targets.gene(network(**given), place)

    for some in row_batches(len(rows), max(1, at_once // n_steps)):
        here = rows[some]
        given, mask = [inputs.tiles(here)], []
        if (subtiles := inputs.subtiles_of(here)) is not None:
            given.append(subtiles)
        if inputs.neighbors is not None:
            given.append(inputs.tiles(inputs.neighbors[here].clip(min=0)))
            mask.append(torch.from_numpy(inputs.neighbors[here] >= 0).to(chosen))
        tensors = tuple(tensor.to(chosen) for tensor in given)
        yield _integrate(
            predict,
            here,
            tensors,
            tuple(torch.zeros_like(tensor) for tensor in tensors),
            fixed=tuple(mask),
            over=-1,
            n_steps=n_steps,
            at_once=at_once,
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
    chosen = _runtime.resolve_device(device)
    network = _frozen(model, chosen)
    turns = range(N_SYMMETRIES if model.hyperparameters["average_symmetries"] else 1)

    def predict(pixels: torch.Tensor) -> torch.Tensor:
        outputs = [network(symmetry(pixels, k)) for k in turns]
        return model.targets.gene(torch.stack(outputs).mean(0), place)

    for rows, batch in tiles:
        pixels = batch.to(chosen) / 255
        yield _integrate(
            predict,
            rows,
            (pixels,),
            (torch.full_like(pixels, _WHITE),),
            over=1,
            n_steps=n_steps,
            at_once=max(1, _PIXELS // (len(turns) * batch.shape[-1] ** 2)),
        )


def largest_gap(parts: list[Attributed], *, spread: float) -> float:
    """How far the sum of the shares is from prediction minus baseline, at most.

    Relative to that difference, or to the spread of the gene's predictions where that is larger:
    a spot that is predicted as the baseline has no difference to measure its gap against.
    """
    predicted, baseline, total = (
        np.concatenate([getattr(part, name) for part in parts]).astype(np.float64)
        for name in ("predicted", "baseline", "total")
    )
    difference = predicted - baseline
    least = max(spread, _ROUNDING * np.abs(predicted).max(), 1e-30)
    return float((np.abs(total - difference) / np.maximum(np.abs(difference), least)).max())


def _frozen(model: Model, device: torch.device) -> torch.nn.Module:
    """A copy of the network whose weights ask for no gradient."""
    return copy.deepcopy(model.network).eval().requires_grad_(False).to(device)


def _integrate(
    predict: Callable[..., torch.Tensor],
    rows: NDArray[np.intp],
    tensors: tuple[torch.Tensor, ...],
    baselines: tuple[torch.Tensor, ...],
    *,
    fixed: tuple[torch.Tensor, ...] = (),
    over: int,
    n_steps: int,
    at_once: int,
) -> Attributed:
    """Integrate gradients between baselines and inputs; sum them over one dimension."""
    from captum.attr import IntegratedGradients

    with torch.no_grad():
        ends = [predict(*end, *fixed) for end in (tensors, baselines)]
    found: Any = IntegratedGradients(predict).attribute(
        tensors,
        baselines=baselines,
        additional_forward_args=fixed or None,
        n_steps=n_steps,
        internal_batch_size=max(at_once, len(rows)),
    )
    shares = tuple(part.detach().sum(over).float().cpu().numpy() for part in found)
    return Attributed(rows, shares, *(end.cpu().numpy() for end in ends))
