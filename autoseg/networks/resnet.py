"""The encoder of kind `resnet50` (He 2016, arXiv 1512.03385) as public weights have it: 2D bottleneck blocks and fixed batch norms.

Stage 0 is the image itself, stage 1 the first convolution, stage 2 pools first; a stage's blocks stride in their 3x3 convolution.
"""

import re
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.networks.blocks import make_convolution
from autoseg.networks.norms import EPSILON
from autoseg.records.plan import NetworkSpec

EXPANSION = 4  # channels that leave a bottleneck per channel inside
START = 0.2  # scale of a block's last norm where no weights are given: as it never learns, sums over many blocks would explode at 1
FIRST = re.compile(r"^(?:backbone\.body\.|backbone\.|module\.)?(conv1\.weight|bn1\.\w+)$")
BLOCK = re.compile(r"^(?:backbone\.body\.|backbone\.|module\.)?layer(\d)\.(\d+)\.((?:conv\d|bn\d|downsample\.\d)\.\w+)$")


class FrozenNorm(nn.Module):
    """Batch normalisation (Ioffe 2015, arXiv 1502.03167) whose statistics, scale and shift are fixed: small batches would spoil them."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((channels,), scale))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, y, x), same shape out."""
        scale = self.weight * (self.running_var + EPSILON).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.view(1, -1, 1, 1).to(x.dtype), x, scale.view(1, -1, 1, 1).to(x.dtype))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut; names as in public weights."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        width, ones = outputs // EXPANSION, (1, 1)
        self.conv1, self.bn1 = make_convolution(inputs, width, ones, ones), FrozenNorm(width)
        self.conv2, self.bn2 = make_convolution(width, width, (3, 3), stride), FrozenNorm(width)
        self.conv3, self.bn3 = make_convolution(width, outputs, ones, ones), FrozenNorm(outputs, START)
        self.downsample = nn.Sequential()
        if inputs != outputs or stride != ones:
            self.downsample = nn.Sequential(make_convolution(inputs, outputs, ones, stride), FrozenNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, inputs, y, x) → (sample, outputs, …), sizes divided by the stride and rounded up."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


def make_resnet_stage(spec: NetworkSpec, stage: int, inputs: int) -> nn.Module:
    """One stage from `inputs` channels to the spec's features."""
    if stage == 0:
        return nn.Identity()
    features, stride = spec.features[stage], spec.strides[stage]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if stage == 1:
        parts["conv1"] = make_convolution(inputs, features, (7, 7), stride)
        parts["bn1"], parts["relu"] = FrozenNorm(features), nn.ReLU(inplace=True)
        return nn.Sequential(parts)
    if stage == 2:
        parts["pool"], stride = nn.MaxPool2d(3, stride, 1), (1, 1)
    for place in range(spec.blocks[stage]):
        parts[str(place)] = Bottleneck(inputs if place == 0 else features, features, stride if place == 0 else (1, 1))
    return nn.Sequential(parts)


def map_public_names(tensors: dict[str, np.ndarray], channels: int) -> dict[str, np.ndarray]:
    """The encoder's tensors of a public ResNet-50 or Mask R-CNN by our names, for an image of so many channels; all others are left out.

    The first convolution's weights for other channels than its own are their sum divided by the number of channels: a grey image is
    seen as one whose colours are equal.
    """
    found = {}
    for name, value in tensors.items():
        if match := FIRST.match(name):
            found[f"encoder.1.{match[1]}"] = value
        elif match := BLOCK.match(name):
            found[f"encoder.{int(match[1]) + 1}.{match[2]}.{match[3]}"] = value
    first = found.get("encoder.1.conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] != channels:
        found["encoder.1.conv1.weight"] = np.repeat(first.sum(axis=1, keepdims=True) / channels, channels, axis=1)
    return {name: value.astype(np.float32) for name, value in found.items() if not name.endswith("num_batches_tracked")}
