"""The code of an autoencoder of all genes as targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from stpredict import nn
from stpredict._settings import settings
from stpredict.targets._base import dense
from stpredict.targets._factors import FactorTargets, check_n_factors, standard_scores
from stpredict.targets._scaling import describe
from stpredict.targets._standard import Standard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stpredict.targets._saved import Saved

#: Widths of STDL's hidden layers, times the number of factors.
_HIDDEN = (100, 10, 5)

#: The widest layer, so that 20,000 genes take 40 million weights and no more. Ours, not STDL's.
_WIDEST = 1024

#: Share of the training rows on which training stops early.
_HELD_OUT = 0.1

# STDL takes three epochs of single rows at a rate of 1e-4.
_BATCH = 64
_LEARNING_RATE = 1e-3
_MAX_EPOCHS = 300
_PATIENCE = 15


@dataclass(frozen=True, eq=False)
class Latent(FactorTargets):
    """Codes of an autoencoder that was trained first, on the scaled genes.

    Attributes
    ----------
    network
        Its decoder makes genes of what another network predicts.
    """

    network: nn.Autoencoder

    kind: ClassVar[str] = "autoencoder"

    @classmethod
    def fit(
        cls, values: Any, columns: NDArray[np.int64], *, n_factors: int, scaling: str, seed: int
    ) -> Latent:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        found = describe(values, scaling)
        check_n_factors(n_factors, values.shape[0], found.constant)
        genes = Standard(found.scaling.mean, np.where(found.constant, 0, found.scaling.scale))
        network = _train(values, genes, n_factors, seed)
        return cls(
            columns=columns,
            n_fit_genes=values.shape[1],
            mean=found.mean[columns],
            constant=found.constant[columns],
            genes=genes,
            scores=standard_scores(_codes(values, genes, network).astype(np.float64)),
            scaling=scaling,
            network=network,
        )

    def transform(self, values: Any) -> NDArray[np.float32]:
        """Codes of all fit genes, standardised, (n, n_fit_genes) to (n, n_factors)."""
        return self.scores.transform(_codes(self._checked(values), self.genes, self.network))

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Genes of the model that the decoder makes of codes, (n, n_genes)."""
        codes = torch.from_numpy(self.factors(outputs))
        scaled = np.empty((len(codes), len(self.columns)), dtype=np.float32)
        with torch.no_grad():
            for rows in _blocks(len(codes)):
                scaled[rows] = self.network.decode(codes[rows]).numpy()[:, self.columns]
        center, scale = self.genes.mean[self.columns], self.genes.scale[self.columns]
        return self._with_constants(scaled * scale + center)

    def _gene(self, outputs: torch.Tensor, place: int) -> torch.Tensor:
        column = self.columns[place]
        codes = self._scores_of(outputs).cpu()  # where the decoder is
        scaled = self.network.decode(codes)[:, column].to(outputs.device)
        return scaled * float(self.genes.scale[column]) + float(self.genes.mean[column])

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        config, tensors = super()._state()
        weights = self.network.state_dict()
        return config, tensors | {f"network.{k}": weight.numpy() for k, weight in weights.items()}

    @classmethod
    def _read(cls, saved: Saved, shared: dict[str, Any]) -> Latent:
        fields = cls._read_factors(saved, shared)
        # widths are read from the arrays, so that none is made that was not saved
        hidden = [
            len(saved.array(f"network.encoder.{2 * i}.bias", (None,))) for i in range(len(_HIDDEN))
        ]
        with torch.device("meta"):
            network = nn.Autoencoder(
                fields["n_fit_genes"], len(fields["scores"].mean), hidden=hidden
            )
        weights = {
            name: torch.tensor(saved.array(f"network.{name}", tuple(weight.shape)))
            for name, weight in network.state_dict().items()
        }
        network.load_state_dict(weights, assign=True)
        return cls(**fields, network=network.eval().requires_grad_(False))


def _train(values: Any, genes: Standard, n_factors: int, seed: int) -> nn.Autoencoder:
    """Train on most rows, keep the weights that are best on the others."""
    order = np.random.default_rng(seed).permutation(values.shape[0])
    held_out, rows = np.split(order, [max(1, round(_HELD_OUT * len(order)))])
    shuffle = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # and not of any accelerator
        hidden = [min(_WIDEST, times * n_factors) for times in _HIDDEN]
        network = nn.Autoencoder(len(genes.mean), n_factors, hidden=hidden)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE, fused=True)
    lowest, waited, best = math.inf, 0, None
    for _ in tqdm(
        range(_MAX_EPOCHS), desc="autoencoder", unit="epoch", disable=settings.verbosity < 1
    ):
        for chosen in torch.randperm(len(rows), generator=shuffle).split(_BATCH):
            batch = _scaled(values, genes, rows[chosen.numpy()])
            optimizer.zero_grad()
            F.mse_loss(network(batch), batch).backward()
            optimizer.step()
        loss = _loss(values, genes, held_out, network)
        waited += 1
        if loss < lowest:
            lowest, waited = loss, 0
            best = {name: weight.clone() for name, weight in network.state_dict().items()}
        if waited == _PATIENCE or not math.isfinite(loss):
            break
    if best is None:
        raise ValueError(
            "the loss of the autoencoder was never a finite number: are values extreme? With "
            'scaling="standard" they are not'
        )
    network.load_state_dict(best)
    return network.eval().requires_grad_(False)


def _loss(values: Any, genes: Standard, rows: NDArray[np.intp], network: nn.Autoencoder) -> float:
    """Mean squared error of the reconstruction of some rows."""
    total = 0.0
    with torch.no_grad():
        for block in _blocks(len(rows)):
            batch = _scaled(values, genes, rows[block])
            total += float(F.mse_loss(network(batch), batch)) * len(batch)
    return total / len(rows)


def _codes(values: Any, genes: Standard, network: nn.Autoencoder) -> NDArray[np.float32]:
    """Codes in their own units, (n, n_factors)."""
    codes = np.empty((values.shape[0], network.n_factors), dtype=np.float32)
    with torch.no_grad():
        for rows in _blocks(len(codes)):
            codes[rows] = network.encode(_scaled(values, genes, rows)).numpy()
    return codes


def _scaled(values: Any, genes: Standard, rows: slice | NDArray[np.intp]) -> torch.Tensor:
    """Scaled genes of some rows, dense."""
    return torch.from_numpy(genes.transform(dense(values[rows])))


def _blocks(n: int) -> Iterator[slice]:
    """Rows that are dense at one time."""
    for start in range(0, n, 1024):
        yield slice(start, min(start + 1024, n))
