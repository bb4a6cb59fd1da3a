"""RoIAlign (He 2017, arXiv 1703.06870, section 3) in plain torch, in 2 and 3 dimensions: features of any box as an array of fixed size.

Every bin of a box is a weighted sum of rows of one table of all voxels of all images and levels, so that one `embedding_bag` gives all of
them, and the same operation with rows and bins exchanged is the gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class FlatMaps:
    """Maps (image, channel, *size) of several levels as one table, float32 (row, channel): level by level, image by image, voxel by voxel.

    `strides` are voxels of the image per voxel of the map.
    """

    table: Tensor
    sizes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]  # first row of each level
    strides: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Regions:
    """Boxes (box, 2·axis) in voxel edges of the image, and of each its image and its level (box,)."""

    boxes: Tensor
    images: Tensor
    levels: Tensor


def flatten_maps(maps: Sequence[Tensor], strides: Sequence[tuple[int, ...]]) -> FlatMaps:
    """The table of maps (image, channel, *size); made once, it serves every head."""
    rows = [level.float().movedim(1, -1).flatten(0, -2) for level in maps]
    starts = [sum(map(len, rows[:place])) for place in range(len(rows))]
    return FlatMaps(torch.cat(rows), tuple(tuple(level.shape[2:]) for level in maps), tuple(starts), tuple(strides))


def align_rois(maps: FlatMaps, regions: Regions, bins: tuple[int, ...], samples: int) -> Tensor:
    """(box, channel, *bins): means of `samples` linear interpolations per axis and bin; beyond its border a map goes on as it ends.

    Linear between the middles of voxels, which lie half a voxel from their edges.
    """
    rows, weights = _find_rows(maps, regions, bins, samples)
    answer = WeightedSums.apply(maps.table, rows, weights)
    return answer.view(len(regions.boxes), *bins, maps.table.shape[1]).movedim(-1, 1)


class WeightedSums(torch.autograd.Function):
    """Sums (bag, channel) of the table's `rows` (bag, term) times `weights` (bag, term).

    The library's own gradient takes several times as long as this one: the terms sorted by row, and summed up again.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.count = len(table)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        order = rows.flatten().argsort(stable=True)
        ends = torch.bincount(rows.flatten(), minlength=ctx.count).cumsum(0)
        starts = F.pad(ends[:-1], (1, 0)).int()
        bags = (order // rows.shape[1]).int()
        gradient = F.embedding_bag(bags, gradients[0].contiguous(), starts, mode="sum", per_sample_weights=weights.flatten()[order])
        return gradient, None, None


def _find_rows(maps: FlatMaps, regions: Regions, bins: tuple[int, ...], samples: int) -> tuple[Tensor, Tensor]:
    """Rows and weights (box · bin, term) of which the bins are made."""
    axes, device = len(bins), regions.boxes.device
    sizes = torch.tensor(maps.sizes, dtype=torch.int32, device=device)[regions.levels]  # (box, axis); 32 bits sort in half the time
    strides = torch.tensor(maps.strides, device=device)[regions.levels]
    low, high = (regions.boxes.float() / strides.repeat(1, 2)).chunk(2, dim=1)
    cells = sizes.prod(1, dtype=torch.int32)
    rows = torch.tensor(maps.starts, dtype=torch.int32, device=device)[regions.levels] + regions.images.int() * cells
    rows, weights = rows.view(-1, *(1,) * (2 * axes)), torch.ones((), device=device)
    for axis in range(axes):
        edge = sizes[:, axis]
        places, shares = _interpolate((low[:, axis], high[:, axis]), edge, bins[axis], samples)
        view = [len(places), *(1,) * (2 * axes)]  # box, bins per axis, terms per axis
        view[1 + axis], view[1 + axes + axis] = places.shape[1:]
        step = sizes[:, axis + 1 :].prod(1, dtype=torch.int32).view(-1, *(1,) * (2 * axes))
        rows = rows + places.view(view) * step
        weights = weights * shares.view(view)
    terms = (2 * samples) ** axes
    return rows.reshape(-1, terms), weights.reshape(-1, terms)


def _interpolate(ends: tuple[Tensor, Tensor], edge: Tensor, bins: int, samples: int) -> tuple[Tensor, Tensor]:
    """Voxels along one axis and their weights, both (box, bin, 2 · sample); `ends` (box,) in voxels of a map of `edge` (box,) voxels."""
    low, high = (end[:, None] for end in ends)
    shares = (torch.arange(bins * samples, device=low.device) + 0.5) / (bins * samples)
    places = (low + (high - low) * shares - 0.5).clamp(min=0)
    places = torch.minimum(places, edge[:, None] - 1.0)
    below = places.floor()
    part = places - below
    above = torch.minimum(below + 1, edge[:, None] - 1.0)
    voxels = torch.stack([below, above], dim=-1).int()
    weights = torch.stack([1 - part, part], dim=-1) / samples
    return voxels.view(-1, bins, 2 * samples), weights.view(-1, bins, 2 * samples)
