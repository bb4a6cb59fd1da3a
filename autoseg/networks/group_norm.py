"""Group normalisation (Wu 2018, arXiv 1803.08494): for maps and crops of any size, even of one voxel, and any number of samples."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.blocks import EPSILON, make_convolution

PER_GROUP = 16  # channels
FEWEST = 4  # groups


def count_groups(channels: int) -> int:
    """Groups of 16 channels, but at least 4 groups, as far as that divides the channels evenly.

    >>> [count_groups(channels) for channels in (256, 64, 24, 6, 1)]
    [16, 4, 4, 3, 1]
    """
    wanted = max(FEWEST, channels // PER_GROUP)
    return next(count for count in range(min(wanted, channels), 0, -1) if channels % count == 0)


class GroupNorm(nn.Module):
    """Group normalisation (affine) in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = count_groups(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (sample, channel, …), same shape out; no samples are fine."""
        return F.group_norm(x, self.groups, self.weight, self.bias, EPSILON)


def make_group_block(inputs: int, outputs: int, kernel: tuple[int, ...]) -> nn.Sequential:
    """Convolution, group normalisation, ReLU."""
    return nn.Sequential(make_convolution(inputs, outputs, kernel, (1,) * len(kernel)), GroupNorm(outputs), nn.ReLU(inplace=True))
