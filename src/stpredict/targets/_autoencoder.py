"""The code of an autoencoder of all genes as targets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from stpredict import _runtime, nn
from stpredict._log import progress_bar
from stpredict.targets._base import State
from stpredict.targets._factors import FactorTargets, check_n_factors, standard_scores
from stpredict.targets._matrix import Matrix, dense
from stpredict.targets._saved import SavedTargets
from stpredict.targets._scaling import describe_columns
from stpredict.targets._standard import Standard

# Widths of STDL's hidden layers, as multiples of the number of factors.
_HIDDEN = (100, 10, 5)
# Maximum width, so that 20,000 genes need at most 40 million weights. Not in STDL.
_MAX_WIDTH = 1024
# Fraction of the training rows that is held out for early stopping.
_HELD_OUT = 0.1
# STDL trains for three epochs of single rows at a rate of 1e-4.
_BATCH = 64
_LEARNING_RATE = 1e-3
_MAX_EPOCHS = 300
_PATIENCE = 15


@dataclass(frozen=True, eq=False)
class Latent(FactorTargets):
    """Codes of an autoencoder, which is trained first, on the scaled genes."""

    network: nn.Autoencoder  # its decoder converts predicted codes to genes

    kind: ClassVar[str] = "autoencoder"

    @classmethod
    def fit(
        cls, values: Matrix, columns: NDArray[np.int64], *, n_factors: int, scaling: str, seed: int
    ) -> Self:
        """Fit on training rows, (n_rows, n_fit_genes)."""
        statistics = describe_columns(values, scaling)
        check_n_factors(n_factors, values.shape[0], statistics)
        genes = Standard(statistics.scaling.mean, statistics.varying_scale)
        network = _train(values, genes, n_factors, seed)
        scores = standard_scores(_codes(values, genes, network).astype(np.float64))
        shared = cls._shared(statistics, columns, scaling)
        return cls(**shared, genes=genes, scores=scores, network=network)

    def transform(self, values: Matrix) -> NDArray[np.float32]:
        """Standardised codes of all fit genes, (n, n_fit_genes) to (n, n_factors)."""
        return self.scores.transform(_codes(self._checked(values), self.genes, self.network))

    def inverse(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """Decoded genes of the model, (n, n_genes)."""
        codes = torch.from_numpy(self.factors(outputs))
        scaled = np.empty((len(codes), len(self.columns)), dtype=np.float32)
        with torch.no_grad():
            # decoding gives all fit genes, so only some rows at a time
            for rows in _row_blocks(len(codes)):
                scaled[rows] = self.network.decode(codes[rows]).numpy()[:, self.columns]
        return self._unscaled(scaled)

    def _scaled_gene(self, outputs: torch.Tensor, column: int) -> torch.Tensor:
        codes = self._factors(outputs).cpu()  # the device of the decoder
        return self.network.decode(codes)[:, column].to(outputs.device)

    def _state(self) -> State:
        config, arrays = super()._state()
        weights = self.network.state_dict()
        return config, arrays | {f"network.{k}": weight.numpy() for k, weight in weights.items()}

    @classmethod
    def _read(cls, saved: SavedTargets) -> Self:
        fields = cls._read_factors(saved)
        # read widths from the arrays, so that a damaged configuration cannot allocate memory
        biases = [f"network.encoder.{2 * i}.bias" for i in range(len(_HIDDEN))]
        hidden = [len(saved.array(name, (None,))) for name in biases]
        n_factors = len(fields["scores"].mean)
        with torch.device("meta"):
            network = nn.Autoencoder(fields["n_fit_genes"], n_factors, hidden=hidden)
        weights = {
            name: torch.tensor(saved.array(f"network.{name}", tuple(weight.shape)))
            for name, weight in network.state_dict().items()
        }
        network.load_state_dict(weights, assign=True)
        return cls(**fields, network=network.eval().requires_grad_(False))


def _train(values: Matrix, genes: Standard, n_factors: int, seed: int) -> nn.Autoencoder:
    """Train on most rows, and return the weights with the lowest loss on the others."""
    order = np.random.default_rng(seed).permutation(values.shape[0])
    n_held_out = max(1, round(_HELD_OUT * len(order)))
    held_out, rows = values[order[:n_held_out]], order[n_held_out:]
    shuffle = torch.Generator().manual_seed(seed)
    with _runtime.seeded(seed, torch.device("cpu")):
        hidden = [min(_MAX_WIDTH, multiple * n_factors) for multiple in _HIDDEN]
        network = nn.Autoencoder(len(genes.mean), n_factors, hidden=hidden)
    # a fused step is faster for small networks
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE, fused=True)
    lowest, n_waited, best = math.inf, 0, None
    for _ in progress_bar(range(_MAX_EPOCHS), description="autoencoder", unit="epoch"):
        for index in torch.randperm(len(rows), generator=shuffle).split(_BATCH):
            batch = _scaled(values, genes, rows[index.numpy()])
            optimizer.zero_grad()
            F.mse_loss(network(batch), batch).backward()
            optimizer.step()
        loss = _loss(held_out, genes, network)
        n_waited += 1
        if loss < lowest:
            lowest, n_waited = loss, 0
            best = {name: weight.clone() for name, weight in network.state_dict().items()}
        if n_waited == _PATIENCE or not math.isfinite(loss):
            break
    if best is None:
        raise ValueError('the autoencoder\'s loss was never finite: use scaling="standard"')
    network.load_state_dict(best)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def _loss(values: Matrix, genes: Standard, network: nn.Autoencoder) -> float:
    """Mean squared error of the reconstruction."""
    total = 0.0
    for rows in _row_blocks(values.shape[0]):
        batch = _scaled(values, genes, rows)
        total += float(F.mse_loss(network(batch), batch)) * len(batch)
    return total / values.shape[0]


@torch.no_grad()
def _codes(values: Matrix, genes: Standard, network: nn.Autoencoder) -> NDArray[np.float32]:
    """Codes in their own units, (n, n_factors)."""
    codes = np.empty((values.shape[0], network.n_factors), dtype=np.float32)
    for rows in _row_blocks(len(codes)):
        codes[rows] = network.encode(_scaled(values, genes, rows)).numpy()
    return codes


def _scaled(values: Matrix, genes: Standard, rows: slice | NDArray[np.intp]) -> torch.Tensor:
    """Dense scaled genes of some rows."""
    return torch.from_numpy(genes.transform(dense(values[rows])))


def _row_blocks(n: int) -> Iterator[slice]:
    """Blocks of rows that are made dense together."""
    for start in range(0, n, 1024):
        yield slice(start, min(start + 1024, n))
