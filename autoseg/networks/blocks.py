"""Convolution, instance normalisation, leaky ReLU: the block that every U-Net here is made of."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5
SLOPE = 0.01

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class FusedNormActivation(torch.autograd.Function):
    """Instance normalisation with scale and shift, then leaky ReLU, as one operation that keeps one copy of its input and output.

    The gradient is that of instance normalisation (Ulyanov 2016, arXiv 1607.08022) written out with two sums per channel. On CPUs it is
    faster than the two library operations one after the other and needs less memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        samples, channels = x.shape[:2]
        voxels = x[0, 0].numel()
        y, mean, rstd = torch.native_group_norm(x, weight, bias, samples, channels, voxels, channels, EPSILON)
        F.leaky_relu_(y, SLOPE)
        ctx.save_for_backward(x, y, mean, rstd, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, mean, rstd, weight = ctx.saved_tensors
        voxels = x[0, 0].numel()
        spatial = tuple(range(2, x.ndim))
        gradient = torch.ops.aten.leaky_relu_backward(gradients[0], y, SLOPE, True)
        total = gradient.sum(spatial)  # (sample, channel)
        weighted = (gradient * x).sum(spatial)
        scale_gradient = (weighted - mean * total) * rstd
        factor = rstd * weight
        slope = -factor * scale_gradient * rstd / voxels
        shift = -factor * total / voxels - slope * mean
        view = (*x.shape[:2], *(1 for _ in spatial))
        x_gradient = torch.addcmul(shift.view(view), x, slope.view(view)).addcmul_(gradient, factor.view(view))
        return x_gradient, scale_gradient.sum(0), total.sum(0)


class NormActivation(nn.Module):
    """Instance normalisation (affine) and leaky ReLU 0.01; the fused form where it is faster: float32 on a CPU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out."""
        if x.device.type == "cpu" and x.dtype == torch.float32:
            return FusedNormActivation.apply(x, self.weight, self.bias)
        return F.leaky_relu(F.instance_norm(x, weight=self.weight, bias=self.bias, eps=EPSILON), SLOPE, inplace=True)


class ConvolutionBlock(nn.Sequential):
    """One convolution of odd kernel that keeps the size up to its stride, then NormActivation; no bias, the norm has one."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        padding = tuple(edge // 2 for edge in kernel)
        convolution = CONVOLUTIONS[len(kernel)](inputs, outputs, kernel, stride, padding, bias=False)  # type: ignore[arg-type]
        super().__init__(convolution, NormActivation(outputs))


def initialise(module: nn.Module) -> None:
    """Kaiming normal weights for leaky ReLU (He 2015, arXiv 1502.01852), zero biases."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(part.weight, a=SLOPE)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
