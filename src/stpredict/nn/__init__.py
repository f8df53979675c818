"""Plain torch modules: tensors in, tensors out."""

from stpredict.nn import losses
from stpredict.nn._mean_of_networks import MeanOfNetworks
from stpredict.nn._published import from_published_state
from stpredict.nn._sets import SetNetwork
from stpredict.nn.autoencoder import Autoencoder
from stpredict.nn.cnn import TileCNN
from stpredict.nn.deepsets import DeepCell, DeepSets
from stpredict.nn.forest import ForestSets
from stpredict.nn.linear import LinearSets
from stpredict.nn.multiscale import MultiScale
from stpredict.nn.stacking import MeanOfModels, StackingMLP

__all__ = [
    "Autoencoder",
    "DeepCell",
    "DeepSets",
    "ForestSets",
    "LinearSets",
    "MeanOfModels",
    "MeanOfNetworks",
    "MultiScale",
    "SetNetwork",
    "StackingMLP",
    "TileCNN",
    "from_published_state",
    "losses",
]


def __dir__() -> list[str]:
    return sorted(__all__)
