"""The U-Net (Ronneberger 2015, arXiv 1505.04597) in 2 and 3 dimensions, with a head at every resolution of its decoder."""

import torch
from torch import Tensor, nn

from autoseg.networks.blocks import CONVOLUTIONS, TRANSPOSED, ConvolutionBlock, ResidualBlock, Style
from autoseg.networks.resnet import make_resnet_stage
from autoseg.records.plan import NetworkSpec


class UNet(nn.Module):
    """Strided convolutions or residual blocks down, transposed convolutions up, skips by concatenation."""

    def __init__(self, spec: NetworkSpec, channels: int, classes: int) -> None:
        super().__init__()
        self.encoder, _ = build_encoder(spec, channels)
        style = Style(spec.activation, spec.dropout)
        self.up, self.decoder, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        dimension = len(spec.strides[0])
        ones = (1,) * dimension
        for stage in range(len(spec.features) - 1):  # decoder parts are numbered by resolution, 0 the finest
            fine, coarse = spec.features[stage], spec.features[stage + 1]
            stride = spec.strides[stage + 1]
            self.up.append(TRANSPOSED[dimension](coarse, fine, stride, stride))  # type: ignore[arg-type]
            self.decoder.append(make_stage((2 * fine, fine), spec.kernel_sizes[stage], ones, spec.decoder_convolutions[stage], style))
            self.heads.append(CONVOLUTIONS[dimension](fine, classes, 1))
        if not self.heads:
            self.heads.append(CONVOLUTIONS[dimension](spec.features[0], classes, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (sample, channel, …) → logits (sample, class, …), finest first; only the finest outside training."""
        skips = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        if not self.decoder:
            return [self.heads[0](x)]
        logits = []
        for stage in reversed(range(len(self.decoder))):
            x = self.decoder[stage](torch.cat([self.up[stage](x), skips[stage]], dim=1))
            if self.training or stage == 0:
                logits.append(self.heads[stage](x))
        return logits[::-1]


def build_encoder(spec: NetworkSpec, channels: int) -> tuple[nn.ModuleList, tuple[int, ...]]:
    """The stages, finest first, and how many channels the map of each has."""
    widths = (channels, *spec.features[1:]) if spec.kind == "resnet50" else spec.features
    stages = nn.ModuleList()
    for stage, inputs in enumerate((channels, *widths[:-1])):
        stages.append(ENCODERS[spec.kind](spec, stage, inputs))
    return stages, widths


def make_stage(ends: tuple[int, int], kernel: tuple[int, ...], stride: tuple[int, ...], convolutions: int, style: Style) -> nn.Sequential:
    """So many convolutions in a row, the first with the stride and from the first to the second number of channels in `ends`."""
    inputs, outputs = ends
    blocks = [ConvolutionBlock(inputs, outputs, kernel, stride, style)]
    blocks += [ConvolutionBlock(outputs, outputs, kernel, (1,) * len(kernel), style) for _ in range(convolutions - 1)]
    return nn.Sequential(*blocks)


def _make_plain_stage(spec: NetworkSpec, stage: int, inputs: int) -> nn.Sequential:
    ends, style = (inputs, spec.features[stage]), Style(spec.activation, spec.dropout)
    return make_stage(ends, spec.kernel_sizes[stage], spec.strides[stage], spec.convolutions[stage], style)


def _make_residual_stage(spec: NetworkSpec, stage: int, inputs: int) -> nn.Sequential:
    """Residual blocks, the first with the stage's stride; at the entry of the network one convolution, which leaves the size as it is."""
    kernel, outputs = spec.kernel_sizes[stage], spec.features[stage]
    ones, style = (1,) * len(kernel), Style(spec.activation, spec.dropout)
    parts: list[nn.Module] = []
    if stage == 0:
        parts.append(ConvolutionBlock(inputs, outputs, kernel, ones, style))
        inputs = outputs
    parts.append(ResidualBlock(inputs, outputs, kernel, spec.strides[stage], style))
    parts += [ResidualBlock(outputs, outputs, kernel, ones, style) for _ in range(spec.blocks[stage] - 1)]
    return nn.Sequential(*parts)


ENCODERS = {"plain": _make_plain_stage, "residual_encoder": _make_residual_stage, "resnet50": make_resnet_stage}
