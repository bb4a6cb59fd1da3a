"""Anchors: boxes of a few shapes at every cell of a map, which the network moves and stretches onto objects."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.networks.boxes import SMALLEST, compute_box_sizes

CELLS = 14  # along a box's side: a box of 224 pixels is read from the map of stride 16 (Lin 2017, equation 1), a bin of a mask is a cell


def make_anchors(size: tuple[int, ...], stride: tuple[int, ...], shapes: Sequence[tuple[float, ...]]) -> Tensor:
    """(cells · shapes, 2·axis): cells of a map of the size row by row, the shapes (sides in voxels) fastest, in the middle of each cell."""
    axes = [(torch.arange(edge) + 0.5) * step for edge, step in zip(size, stride)]
    middles = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 1, len(size))
    halves = torch.tensor(shapes, dtype=torch.float32)[None] / 2
    return torch.cat([middles - halves, middles + halves], dim=-1).flatten(0, 1)


def choose_levels(boxes: Tensor, strides: Sequence[tuple[int, ...]]) -> Tensor:
    """(box,): of the levels of these strides (voxels per axis) the one that shows the box's sides in the number of cells nearest to CELLS.

    Nearest in the logarithm of the geometric mean over the axes: Lin 2017 (arXiv 1612.03144), equation 1, has floor where this rounds.
    """
    steps = torch.tensor(strides, dtype=torch.float32, device=boxes.device).log().mean(1)
    sides = compute_box_sizes(boxes).clamp(min=SMALLEST).log().mean(1)
    return (sides[:, None] - steps - math.log(CELLS)).abs().argmin(1)
