"""Prediction of some of a model's genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stpredict.models._restrict import check_genes, restrict
from stpredict.models._stack import predict_ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stpredict.models import Model


@dataclass(frozen=True, eq=False)
class GeneSelection:
    """Some genes of a model, and how they are predicted."""

    described: Model  # with these genes, their targets and their calibration
    predictor: Model  # that predicts them
    columns: NDArray[np.intp] | slice  # these genes among those of the predictor

    @classmethod
    def of(cls, model: Model, genes: Sequence[str] | None) -> GeneSelection:
        """Check the names of the genes; None selects all."""
        if genes is None:
            return cls(model, model, slice(None))
        names = check_genes(model, genes)
        index = np.array([model.genes.index(gene) for gene in names])
        calibration = None if model.calibration is None else model.calibration.subset(index)
        targets = model.targets.subset(index.tolist())
        described = replace(model, genes=tuple(names), targets=targets, calibration=calibration)
        # the network of a stack reads all genes of its bases
        if model.bases:
            return cls(described, model, index)
        predictor = replace(restrict(model, names), calibration=calibration)
        return cls(described, predictor, slice(None))

    def rank(
        self, by_base: NDArray[np.float32], sections: NDArray[np.str_], genes: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Some of the selected genes of a ranked stack, (n, c), from its bases, (n, bases × c)."""
        columns = np.arange(len(self.predictor.genes))[self.columns][genes]
        n, n_bases = len(by_base), len(self.predictor.bases)
        predicted = by_base.reshape(n, n_bases, -1).swapaxes(0, 1)
        return predict_ranked(self.predictor, predicted, sections, columns.tolist())
