"""An autoencoder of expression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn

from stpredict.nn._check import check_dtype, check_shape


class Autoencoder(nn.Module):
    """Two mirrored stacks of linear layers with ReLU between them, and a linear code.

    The network of STDL [1]_.

    Parameters
    ----------
    n_genes, n_factors
        Width of input and reconstruction, and of the code.
    hidden
        Widths of the layers between genes and code; STDL's are 100, 10 and 5 times ``n_factors``.
        All widths must be at least 1, else a ValueError is raised.

    References
    ----------
    .. [1] Rubin, Spatial Transcriptomics Deep Learning, Technion 2020,
       https://github.com/Roy-Rubin/STDL-Project.

    Examples
    --------
    >>> import torch
    >>> from stpredict import nn
    >>> autoencoder = nn.Autoencoder(50, 2, hidden=(20, 10))
    >>> code = autoencoder.encode(torch.zeros(4, 50))
    >>> code.shape, autoencoder.decode(code).shape
    (torch.Size([4, 2]), torch.Size([4, 50]))
    """

    def __init__(self, n_genes: int, n_factors: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [n_genes, *hidden, n_factors]
        if min(widths) < 1:
            raise ValueError(f"All widths must be at least 1: {widths}.")
        self.n_genes, self.n_factors = n_genes, n_factors
        self.encoder = nn.Sequential(*_layers(widths))
        self.decoder = nn.Sequential(*_layers(widths[::-1]))

    def encode(self, genes: Tensor) -> Tensor:
        """Map ``(n, n_genes)`` to codes ``(n, n_factors)``."""
        self._check("genes", genes, self.n_genes)
        return self.encoder(genes)

    def decode(self, code: Tensor) -> Tensor:
        """Map codes ``(n, n_factors)`` to ``(n, n_genes)``."""
        self._check("code", code, self.n_factors)
        return self.decoder(code)

    def forward(self, genes: Tensor) -> Tensor:
        """Reconstruct ``(n, n_genes)``."""
        return self.decode(self.encode(genes))

    def _check(self, name: str, value: Tensor, width: int) -> None:
        check_shape(name, value, (None, width))
        check_dtype(value, next(self.parameters()).dtype)


def _layers(widths: Sequence[int]) -> Iterator[nn.Module]:
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        if i:
            yield nn.ReLU()
        yield nn.Linear(n_in, n_out)
