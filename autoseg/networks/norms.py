"""Instance and group normalisation, written out where the library's are slow: on CPUs in float32, and where channels lie last in memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5
EVERY = 4  # of the voxels along an axis, for a first guess of a mean
SLOPE = 0.01
PER_GROUP = 16  # channels
FEWEST = 4  # groups


def count_groups(channels: int) -> int:
    """Groups of 16 channels, but at least 4 groups, as far as that divides the channels evenly.

    >>> [count_groups(channels) for channels in (256, 64, 24, 6, 1)]
    [16, 4, 4, 3, 1]
    """
    wanted = max(FEWEST, channels // PER_GROUP)
    return next(count for count in range(min(wanted, channels), 0, -1) if channels % count == 0)


def _has_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def _is_written_out(x: Tensor) -> bool:
    """Whether the operations here are the faster ones."""
    return x.device.type == "cpu" and x.numel() > 0 and (x.dtype == torch.float32 or _has_channels_last(x))


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (sample, channel, …) normalised, scaled and shifted, and the mean and inverse deviation (sample, group) of x.

    With the channels last the library's variance is the mean of the squares less the square of the mean, which loses digits where a group
    lies far from 0 (3e-3 of the answer at a mean of six deviations). So there the mean of a part of the voxels is taken off before, unless
    16 bits hold no more digits anyway.
    """
    samples, channels = x.shape[:2]
    voxels = x[0, 0].numel()
    if x.is_contiguous() or x.dtype == torch.bfloat16:
        return torch.native_group_norm(x, weight, bias, samples, channels, voxels, groups, EPSILON)
    spatial = tuple(range(2, x.ndim))
    part = x
    for axis in spatial:
        part = part.unfold(axis, 1, EVERY).squeeze(-1)
    about = part.mean(spatial).view(samples, groups, -1).mean(2)
    near = x - about.repeat_interleave(channels // groups, dim=1).view(samples, channels, *(1 for _ in spatial))
    y, mean, rstd = torch.native_group_norm(near, weight, bias, samples, channels, voxels, groups, EPSILON)
    return y, mean + about, rstd


def _sum_voxels(x: Tensor) -> Tensor:
    """Sums (sample, channel) over the voxels, in float32 at least."""
    return x.sum(tuple(range(2, x.ndim)), dtype=torch.promote_types(x.dtype, torch.float32))


def _differentiate(gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, scale and shift from that of the normalised output: written out with two sums per channel."""
    samples, channels = x.shape[:2]
    groups = mean.shape[1]
    if groups == channels and x.dtype == torch.bfloat16:
        return _differentiate_each(gradient, x, mean, rstd, weight)
    size = x[0].numel() // groups

    def spread(values: Tensor) -> Tensor:
        return values.repeat_interleave(channels // groups, dim=1)

    def gather(values: Tensor) -> Tensor:
        return spread((values * weight).view(samples, groups, -1).sum(2)) / size

    total = _sum_voxels(gradient)  # (sample, channel)
    mean, rstd = spread(mean), spread(rstd)
    scale_gradient = (_sum_voxels(gradient * x) - mean * total) * rstd
    slope = -gather(scale_gradient) * rstd * rstd
    shift = -gather(total) * rstd - slope * mean
    view = (samples, channels, *(1 for _ in x.shape[2:]))
    factor, slope, shift = (values.view(view).to(x.dtype) for values in (rstd * weight, slope, shift))
    return torch.addcmul(shift, x, slope).addcmul_(gradient, factor), scale_gradient.sum(0), total.sum(0)


def _differentiate_each(gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same where every channel is a group: that of batch normalisation of each sample by itself, which is faster in 16 bits."""
    x_gradient, scale_gradients, shift_gradients = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)
    for place in range(len(x)):
        part = slice(place, place + 1)
        x_gradient[part], scale_gradients[place], shift_gradients[place] = torch.ops.aten.native_batch_norm_backward(
            gradient[part], x[part], weight, None, None, mean[place], rstd[place], True, EPSILON, [True, True, True]
        )
    return x_gradient, scale_gradients.sum(0), shift_gradients.sum(0)


class FusedNorm(torch.autograd.Function):
    """Normalisation in groups of channels with scale and shift (Wu 2018, arXiv 1803.08494), faster on CPUs than the library's.

    With as many groups as channels it is instance normalisation (Ulyanov 2016, arXiv 1607.08022).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        y, mean, rstd = _normalise(x, weight, bias, groups)
        ctx.save_for_backward(x, mean, rstd, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        return *_differentiate(gradients[0], *ctx.saved_tensors), None


class FusedNormActivation(torch.autograd.Function):
    """The same, then leaky ReLU, as one operation that keeps one copy of its input and output.

    On CPUs it is faster than the two library operations one after the other and needs less memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, slope: float) -> Tensor:
        y, mean, rstd = _normalise(x, weight, bias, groups)
        F.leaky_relu_(y, slope)
        ctx.save_for_backward(x, y, mean, rstd, weight)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, y, mean, rstd, weight = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradients[0], y, ctx.slope, True)
        return *_differentiate(gradient, x, mean, rstd, weight), None, None


def _normalise_flat(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Instance normalisation as batch normalisation of one sample that has all channels of all samples: (1, sample · channel, …).

    So the library does it too, but it gives a view of the answer back, and changing a view in place costs two copies in the backward pass.
    """
    samples = x.shape[0]
    flat = x.reshape(1, -1, *x.shape[2:])
    return F.batch_norm(flat, None, None, weight.repeat(samples), bias.repeat(samples), training=True, eps=EPSILON)


class Norm(nn.Module):
    """Instance normalisation (affine)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out."""
        if _is_written_out(x):
            return FusedNorm.apply(x, self.weight, self.bias, len(self.weight))
        return _normalise_flat(x, self.weight, self.bias).view(x.shape)


class NormActivation(Norm):
    """Instance normalisation (affine) and leaky ReLU of a slope (0: ReLU)."""

    def __init__(self, channels: int, slope: float = SLOPE) -> None:
        super().__init__(channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out."""
        if _is_written_out(x):
            return FusedNormActivation.apply(x, self.weight, self.bias, len(self.weight), self.slope)
        return F.leaky_relu(_normalise_flat(x, self.weight, self.bias), self.slope, inplace=True).view(x.shape)


class GroupNorm(nn.Module):
    """Normalisation (affine) in groups of channels, for maps and crops of any size, even of one voxel, and any number of samples."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = count_groups(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out; no samples are fine."""
        if _is_written_out(x):
            return FusedNorm.apply(x, self.weight, self.bias, self.groups)
        return F.group_norm(x, self.groups, self.weight, self.bias, EPSILON)


class GroupNormActivation(GroupNorm):
    """The same and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out; no samples are fine."""
        if _is_written_out(x):
            return FusedNormActivation.apply(x, self.weight, self.bias, self.groups, 0.0)
        return super().forward(x).relu_()
