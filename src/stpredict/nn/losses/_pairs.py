"""Weighted sums of two losses."""

from __future__ import annotations

from torch import Tensor, nn

from stpredict.nn.losses._base import Loss, check_weights
from stpredict.nn.losses._correlation import Cosine, Pearson
from stpredict.nn.losses._pointwise import L1, MSE, Huber


class _WeightedSum(Loss):
    """Losses times their weights, summed."""

    def __init__(self, *parts: Loss, **weights: float) -> None:
        super().__init__()
        check_weights(**weights)
        self.parts = nn.ModuleList(parts)
        self.weights = weights

    def compute(self, predicted: Tensor, target: Tensor, log_library: Tensor) -> Tensor:
        """Sum of the weighted parts."""
        weighted = [
            weight * part.compute(predicted, target, log_library)  # type: ignore[operator]
            for part, weight in zip(self.parts, self.weights.values(), strict=True)
        ]
        total: Tensor = sum(weighted[1:], start=weighted[0])
        return total

    def extra_repr(self) -> str:
        """Give the weights."""
        return ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())


class MSEPearson(_WeightedSum):
    """Weighted sum of `MSE` and `Pearson`.

    Parameters
    ----------
    mse_weight, pearson_weight
        At least 0, not both 0.

    Raises
    ------
    ValueError
        If a weight is out of its range.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> loss = losses.MSEPearson(pearson_weight=0.5)
    >>> loss(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
    tensor(2.)
    """

    name = "mse_pearson"

    def __init__(self, *, mse_weight: float = 1.0, pearson_weight: float = 1.0) -> None:
        super().__init__(MSE(), Pearson(), mse_weight=mse_weight, pearson_weight=pearson_weight)


class MSECosine(_WeightedSum):
    """Weighted sum of `MSE` and `Cosine`.

    Parameters
    ----------
    mse_weight, cosine_weight
        At least 0, not both 0.

    Raises
    ------
    ValueError
        If a weight is out of its range.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> loss = losses.MSECosine(cosine_weight=0.5)
    >>> loss(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
    tensor(1.5000)
    """

    name = "mse_cosine"

    def __init__(self, *, mse_weight: float = 1.0, cosine_weight: float = 1.0) -> None:
        super().__init__(MSE(), Cosine(), mse_weight=mse_weight, cosine_weight=cosine_weight)


class L1Cosine(_WeightedSum):
    """Weighted sum of `L1` and `Cosine`.

    Parameters
    ----------
    l1_weight, cosine_weight
        At least 0, not both 0.

    Raises
    ------
    ValueError
        If a weight is out of its range.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> loss = losses.L1Cosine(cosine_weight=0.5)
    >>> loss(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
    tensor(1.5000)
    """

    name = "l1_cosine"

    def __init__(self, *, l1_weight: float = 1.0, cosine_weight: float = 1.0) -> None:
        super().__init__(L1(), Cosine(), l1_weight=l1_weight, cosine_weight=cosine_weight)


class HuberCosine(_WeightedSum):
    """Weighted sum of `Huber`, with a delta of 1, and `Cosine`.

    Parameters
    ----------
    huber_weight, cosine_weight
        At least 0, not both 0.

    Raises
    ------
    ValueError
        If a weight is out of its range.

    Examples
    --------
    >>> import torch
    >>> from stpredict.nn import losses
    >>> loss = losses.HuberCosine(cosine_weight=0.5)
    >>> loss(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
    tensor(1.)
    """

    name = "huber_cosine"

    def __init__(self, *, huber_weight: float = 1.0, cosine_weight: float = 1.0) -> None:
        super().__init__(Huber(), Cosine(), huber_weight=huber_weight, cosine_weight=cosine_weight)
