"""Anchors: boxes of a few shapes at every cell of a map, which the network moves and stretches onto objects."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.networks.boxes import SMALLEST, compute_box_sizes
from autoseg.records.detection import DetectionSpec


def make_anchors(size: tuple[int, ...], stride: tuple[int, ...], shapes: Sequence[tuple[float, ...]]) -> Tensor:
    """(cells · shapes, 2·axis): cells of a map of the size row by row, the shapes (sides in voxels) fastest, in the middle of each cell."""
    axes = [(torch.arange(edge) + 0.5) * step for edge, step in zip(size, stride)]
    middles = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 1, len(size))
    halves = torch.tensor(shapes, dtype=torch.float32)[None] / 2
    return torch.cat([middles - halves, middles + halves], dim=-1).flatten(0, 1)


def choose_levels(boxes: Tensor, detection: DetectionSpec) -> Tensor:
    """(box,): the detection's level whose anchors are nearest to the box in size, in the logarithm of the geometric mean of the sides."""
    means = [sum(math.log(side) for shape in level for side in shape) / sum(map(len, level)) for level in detection.anchors]
    sides = compute_box_sizes(boxes).clamp(min=SMALLEST).log().mean(1)
    return (sides[:, None] - torch.tensor(means, device=boxes.device)).abs().argmin(1)
