"""The feature pyramid (Lin 2017, arXiv 1612.03144) over an encoder's stages, and the light decoder from it back to full resolution."""

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.blocks import CONVOLUTIONS, TRANSPOSED, Style, make_convolution
from autoseg.networks.norms import GroupNorm
from autoseg.networks.unet import make_stage
from autoseg.records.plan import NetworkSpec


def list_strides(spec: NetworkSpec) -> list[tuple[int, ...]]:
    """Voxels of the image per voxel of each stage's map, per axis."""
    products = accumulate(spec.strides, lambda whole, step: tuple(a * b for a, b in zip(whole, step)))
    return list(products)


class Pyramid(nn.Module):
    """Brings the maps of the stages `levels` to one number of channels; each is told what all coarser stages of the encoder see."""

    def __init__(self, spec: NetworkSpec, widths: tuple[int, ...], levels: tuple[int, ...], features: int) -> None:
        super().__init__()
        dimension = len(spec.strides[0])
        ones = (1,) * dimension
        self.levels = levels
        self.lateral, self.output = nn.ModuleDict(), nn.ModuleDict()  # by stage
        for stage in range(levels[0], len(widths)):
            self.lateral[str(stage)] = CONVOLUTIONS[dimension](widths[stage], features, 1)
        for stage in levels:
            convolution = make_convolution(features, features, spec.kernel_sizes[stage], ones)
            self.output[str(stage)] = nn.Sequential(convolution, GroupNorm(features))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (sample, channel, …) of all stages, of any sizes → those of the levels, of equal channels and the same sizes."""
        x: Tensor | None = None
        answers = []
        for stage in reversed(range(self.levels[0], len(maps))):
            fine = self.lateral[str(stage)](maps[stage])
            x = fine if x is None else fine + F.interpolate(x, size=fine.shape[2:], mode="nearest")
            if stage in self.levels:
                answers.append(self.output[str(stage)](x))
        return answers[::-1]


class FineDecoder(nn.Module):
    """A U-Net's decoder from the pyramid's finest map, of stage `start`, to full resolution."""

    def __init__(self, spec: NetworkSpec, widths: tuple[int, ...], start: int, features: int) -> None:
        super().__init__()
        dimension = len(spec.strides[0])
        ones, style = (1,) * dimension, Style(spec.activation, spec.dropout)
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.features = features if start == 0 else spec.features[0]
        for stage in range(start):  # numbered by resolution, 0 the finest
            fine, stride = spec.features[stage], spec.strides[stage + 1]
            coarse = features if stage == start - 1 else spec.features[stage + 1]
            self.up.append(TRANSPOSED[dimension](coarse, fine, stride, stride))  # type: ignore[arg-type]
            ends = (fine + widths[stage], fine)
            self.decoder.append(make_stage(ends, spec.kernel_sizes[stage], ones, spec.decoder_convolutions[stage], style))

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """x (sample, channel, …) and the encoder's maps → (sample, self.features, …) of the size of the first of them."""
        for stage in reversed(range(len(self.decoder))):
            size = skips[stage].shape[2:]
            wide = self.up[stage](x)  # as large as the skip, or longer by less than a stride where its size is no multiple
            for axis, edge in enumerate(size):
                wide = wide.narrow(2 + axis, 0, edge)
            x = self.decoder[stage](torch.cat([wide, skips[stage]], dim=1))
        return x
