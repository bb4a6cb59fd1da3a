"""Convolution, dropout, instance normalisation, activation: the blocks, plain and residual, that every U-Net here is made of."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5
EVERY = 4  # of the voxels along an axis, for a first guess of a mean
SLOPE = 0.01
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


def _normalise(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x (sample, channel, …) normalised, scaled and shifted, and the mean and inverse deviation (sample, channel) of x.

    With the channels last the library's variance is the mean of the squares less the square of the mean, which loses digits where a channel
    lies far from 0 (3e-3 of the answer at a mean of six deviations). So there the mean of a part of the voxels is taken off before.
    """
    samples, channels = x.shape[:2]
    voxels = x[0, 0].numel()
    if x.is_contiguous():
        return torch.native_group_norm(x, weight, bias, samples, channels, voxels, channels, EPSILON)
    spatial = tuple(range(2, x.ndim))
    part = x
    for axis in spatial:
        part = part.unfold(axis, 1, EVERY).squeeze(-1)
    about = part.mean(spatial)
    near = x - about.view(samples, channels, *(1 for _ in spatial))
    y, mean, rstd = torch.native_group_norm(near, weight, bias, samples, channels, voxels, channels, EPSILON)
    return y, mean + about, rstd


def _differentiate(gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, scale and shift from that of the normalised output: written out with two sums per channel."""
    voxels = x[0, 0].numel()
    spatial = tuple(range(2, x.ndim))
    total = gradient.sum(spatial)  # (sample, channel)
    weighted = (gradient * x).sum(spatial)
    scale_gradient = (weighted - mean * total) * rstd
    factor = rstd * weight
    slope = -factor * scale_gradient * rstd / voxels
    shift = -factor * total / voxels - slope * mean
    view = (*x.shape[:2], *(1 for _ in spatial))
    x_gradient = torch.addcmul(shift.view(view), x, slope.view(view)).addcmul_(gradient, factor.view(view))
    return x_gradient, scale_gradient.sum(0), total.sum(0)


class FusedNorm(torch.autograd.Function):
    """Instance normalisation with scale and shift (Ulyanov 2016, arXiv 1607.08022), faster on CPUs than the library's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y, mean, rstd = _normalise(x, weight, bias)
        ctx.save_for_backward(x, mean, rstd, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _differentiate(gradients[0], *ctx.saved_tensors)


class FusedNormActivation(torch.autograd.Function):
    """Instance normalisation with scale and shift, then leaky ReLU, as one operation that keeps one copy of its input and output.

    On CPUs it is faster than the two library operations one after the other and needs less memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
        y, mean, rstd = _normalise(x, weight, bias)
        F.leaky_relu_(y, slope)
        ctx.save_for_backward(x, y, mean, rstd, weight)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, y, mean, rstd, weight = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradients[0], y, ctx.slope, True)
        return *_differentiate(gradient, x, mean, rstd, weight), None


def _normalise_flat(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Instance normalisation as batch normalisation of one sample that has all channels of all samples: (1, sample · channel, …).

    So the library does it too, but it gives a view of the answer back, and changing a view in place costs two copies in the backward pass.
    """
    samples = x.shape[0]
    flat = x.reshape(1, -1, *x.shape[2:])
    return F.batch_norm(flat, None, None, weight.repeat(samples), bias.repeat(samples), training=True, eps=EPSILON)


class Norm(nn.Module):
    """Instance normalisation (affine); the fused form where it is faster: float32 on a CPU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out."""
        if x.device.type == "cpu" and x.dtype == torch.float32:
            return FusedNorm.apply(x, self.weight, self.bias)
        return _normalise_flat(x, self.weight, self.bias).view(x.shape)


class NormActivation(Norm):
    """Instance normalisation (affine) and leaky ReLU of a slope (0: ReLU), fused likewise."""

    def __init__(self, channels: int, slope: float = SLOPE) -> None:
        super().__init__(channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out."""
        if x.device.type == "cpu" and x.dtype == torch.float32:
            return FusedNormActivation.apply(x, self.weight, self.bias, self.slope)
        return F.leaky_relu(_normalise_flat(x, self.weight, self.bias), self.slope, inplace=True).view(x.shape)


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


def initialise(module: nn.Module) -> None:
    """Kaiming normal weights for leaky ReLU (He 2015, arXiv 1502.01852), zero biases, and residual blocks that start as their shortcut."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(part.weight, a=SLOPE)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, ResidualBlock):
            nn.init.zeros_(part.norm.weight)
