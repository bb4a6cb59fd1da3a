"""Convolution, dropout, instance normalisation, activation: the blocks, plain and residual, that every U-Net here is made of."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.norms import SLOPE, GroupNormActivation, Norm, NormActivation

SLOPES = {"leaky_relu": SLOPE, "relu": 0.0}  # of activations that are one fixed slope below 0

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
DROPOUTS: dict[int, type[nn.Dropout2d] | type[nn.Dropout3d]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
AVERAGE_POOLINGS = {2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class Style:
    """What stands behind every convolution: the activation, and the share of feature maps that dropout leaves out."""

    activation: Literal["leaky_relu", "relu", "prelu"] = "leaky_relu"
    dropout: float = 0.0


PLAIN_STYLE = Style()


def make_convolution(inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
    """A convolution of odd kernel that keeps the size up to its stride; no bias, as the norm behind it has one."""
    padding = tuple(edge // 2 for edge in kernel)
    return CONVOLUTIONS[len(kernel)](inputs, outputs, kernel, stride, padding, bias=False)  # type: ignore[arg-type]


def make_activation(channels: int, style: Style) -> nn.Module:
    """The activation by its name; PReLU (He 2015, arXiv 1502.01852) has a slope per channel."""
    if style.activation == "prelu":
        return nn.PReLU(channels)
    return nn.LeakyReLU(SLOPES[style.activation], inplace=True)


class ConvolutionBlock(nn.Sequential):
    """One convolution, dropout where wanted, then norm and activation; the names of the weights are the same with dropout and without."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], style: Style = PLAIN_STYLE) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict({"0": make_convolution(inputs, outputs, kernel, stride)})
        if style.dropout:
            parts["dropout"] = DROPOUTS[len(kernel)](style.dropout)
        if style.activation == "prelu":
            parts |= {"1": Norm(outputs), "2": make_activation(outputs, style)}
        else:
            parts["1"] = NormActivation(outputs, SLOPES[style.activation])
        super().__init__(parts)


class AveragePool(nn.Module):
    """Means of boxes of `stride` voxels, in the input's precision: CPUs pool volumes in float32 only, and what follows would be so."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), sizes divided by the stride and rounded up."""
        return AVERAGE_POOLINGS[len(self.stride)](x, self.stride, ceil_mode=True).to(x.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut (He 2016, arXiv 1512.03385), which pools by averages (ResNet-D, He 2019, arXiv 1812.01187).

    The last norm starts with scale 0, so that a block starts as its shortcut (Goyal 2017, arXiv 1706.02677).
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], style: Style = PLAIN_STYLE) -> None:
        super().__init__()
        ones = (1,) * len(kernel)
        self.first = ConvolutionBlock(inputs, outputs, kernel, stride, style)
        self.second = make_convolution(outputs, outputs, kernel, ones)
        self.dropout = DROPOUTS[len(kernel)](style.dropout) if style.dropout else nn.Identity()
        self.norm = Norm(outputs)
        self.shortcut = nn.Sequential()
        if stride != ones:
            self.shortcut.append(AveragePool(stride))
        if inputs != outputs:
            self.shortcut.append(make_convolution(inputs, outputs, ones, ones))
            self.shortcut.append(Norm(outputs))
        self.activation = make_activation(outputs, style)

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, inputs, …) → (sample, outputs, …), sizes divided by the stride and rounded up."""
        return self.activation(self.norm(self.dropout(self.second(self.first(x)))) + self.shortcut(x))


def make_group_block(inputs: int, outputs: int, kernel: tuple[int, ...]) -> nn.Sequential:
    """Convolution, group normalisation, ReLU: what heads are made of."""
    return nn.Sequential(make_convolution(inputs, outputs, kernel, (1,) * len(kernel)), GroupNormActivation(outputs))


def initialise(module: nn.Module) -> None:
    """Kaiming normal weights for leaky ReLU (He 2015, arXiv 1502.01852), zero biases, and residual blocks that start as their shortcut."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(part.weight, a=SLOPE)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, ResidualBlock):
            nn.init.zeros_(part.norm.weight)
