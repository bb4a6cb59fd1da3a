"""Cutting patches out of what was read: copies where they lie on voxels, interpolation on the training device where they do not."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.training.augmentation import apply_axes
from autoseg.training.sampling import Sample

BEFORE, BEHIND = 1, 2  # voxels of border around a box: positions beyond it end there, and so do their neighbours


@dataclass(frozen=True)
class Warp:
    """Samples of a batch that are interpolated, all boxes padded to one shape; `rows` are their places in the batch.

    `straight`: no axis is turned or bent, so that each is interpolated by itself, which is much faster.

    images (channel, n, *box) less their background and labels (n, *box), whole numbers, both within a border of 0 (one voxel before, two
    behind); matrices (n, dimension, dimension) and centres (n, dimension) in voxels of the box with its border; backgrounds (n, channel);
    displacements (n, dimension, *grid), or nothing where no sample has any.
    """

    straight: bool
    rows: list[int]
    images: Tensor
    labels: Tensor
    matrices: Tensor
    centres: Tensor
    backgrounds: Tensor
    displacements: Tensor | None

    def move(self, place: Callable[[Tensor], Tensor]) -> "Warp":
        """The same with its tensors placed elsewhere."""
        tensors = {name: place(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


def cut_on_voxels(part: np.ndarray, sample: Sample, into: np.ndarray) -> None:
    """Copies the patch of a sample that lies on voxels: part (…, *box) into (…, *patch), which holds the background, mirrored."""
    source: list[Any] = [...]
    target: list[Any] = [...]
    dimension = len(sample.centre)
    for middle, edge, (low, high) in zip(sample.centre, into.shape[-dimension:], sample.box):
        start = round(middle - (edge - 1) / 2)
        first, last = max(start, low), min(start + edge, high)
        source.append(slice(first - low, last - low))
        target.append(slice(first - start, last - start))
    mirrored = np.flip(into, tuple(axis - dimension for axis in sample.flips))
    mirrored[tuple(target)] = part[tuple(source)]


def make_warps(samples: list[Sample], parts: list[tuple[np.ndarray, np.ndarray]], most: int) -> list[Warp]:
    """The warps of the samples of a batch that do not lie on voxels, up to `most` in each.

    parts: image and label inside its box, of every sample.
    """
    kinds: dict[bool, list[int]] = {True: [], False: []}
    for row, sample in enumerate(samples):
        if not sample.on_voxels:
            straight = sample.displacements is None and np.array_equal(sample.matrix, np.diag(np.diag(sample.matrix)))
            kinds[bool(straight)].append(row)
    return [
        _make_warp(straight, rows[first : first + most], samples, parts)
        for straight, rows in kinds.items()
        for first in range(0, len(rows), most)
    ]


def _make_warp(straight: bool, rows: list[int], samples: list[Sample], parts: list[tuple[np.ndarray, np.ndarray]]) -> Warp:
    chosen = [samples[row] for row in rows]
    sizes = np.array([parts[row][1].shape for row in rows])
    channels, dimension = len(chosen[0].background), sizes.shape[1]
    box = tuple(int(edge) + BEFORE + BEHIND for edge in sizes.max(axis=0))
    images = np.zeros((channels, len(rows), *box), dtype=np.float32)
    labels = np.zeros((len(rows), *box), dtype=parts[rows[0]][1].dtype)
    backgrounds = np.array([sample.background for sample in chosen], dtype=np.float32)
    for place, row in enumerate(rows):
        inside = tuple(slice(BEFORE, BEFORE + size) for size in sizes[place])
        image, label = parts[row]
        np.subtract(image, backgrounds[place].reshape(-1, *(1,) * dimension), out=images[:, place][(slice(None), *inside)])
        labels[place][inside] = label
    signs = np.array([[-1.0 if axis in sample.flips else 1.0 for axis in range(dimension)] for sample in chosen])
    lows = np.array([[low for low, _ in sample.box] for sample in chosen])
    return Warp(
        straight=straight,
        rows=rows,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        matrices=torch.from_numpy((np.stack([sample.matrix for sample in chosen]) * signs[:, None]).astype(np.float32)),
        centres=torch.from_numpy((np.array([sample.centre for sample in chosen]) - lows + BEFORE).astype(np.float32)),
        backgrounds=torch.from_numpy(backgrounds),
        displacements=_collect_displacements(chosen),
    )


def _collect_displacements(samples: list[Sample]) -> Tensor | None:
    """Mirrored like the patch that they belong to, so that mirroring needs no step of its own; 0 for the samples without."""
    drawn = [sample.displacements for sample in samples]
    first = next((one for one in drawn if one is not None), None)
    if first is None:
        return None
    table = np.zeros((len(samples), *first.shape), dtype=np.float32)
    for place, (sample, one) in enumerate(zip(samples, drawn)):
        if one is not None:
            table[place] = np.flip(one, tuple(axis + 1 for axis in sample.flips))
    return torch.from_numpy(table)


def apply_warp(warp: Warp, images: Tensor, labels: Tensor) -> None:
    """Writes the warped patches into a batch: images (sample, channel, *patch) by linear, labels (sample, *patch) by nearest

    interpolation. Beyond the image lies its own background, labelled 0.
    """
    patch = tuple(labels.shape[1:])
    interpolated, nearest = _stretch(warp, patch) if warp.straight else _bend(warp, patch)
    for place, row in enumerate(warp.rows):
        for image, channel, background in zip(images[row], interpolated, warp.backgrounds[place]):
            torch.add(channel[place], background, out=image)
        labels[row] = nearest[place]


def _stretch(warp: Warp, patch: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """Images (n, *patch) by channel, less their background, and labels (n, *patch), where the matrices are diagonal: axis after axis."""
    positions = []
    for axis, (edge, size) in enumerate(zip(patch, warp.labels.shape[1:])):
        position = warp.centres[:, axis, None] + warp.matrices[:, axis, axis, None] * _make_steps(edge, warp)
        positions.append(position.clamp_(0, size - BEHIND))
    weights = [_weigh(position, size) for position, size in zip(positions, warp.labels.shape[1:])]
    channels = [apply_axes(channel, *weights) for channel in warp.images]
    labels = []
    for number, label in enumerate(warp.labels):
        for axis, position in enumerate(positions):
            label = label.index_select(axis, (position[number] + 0.5).int())
        labels.append(label)
    return channels, torch.stack(labels)


def _make_steps(edge: int, warp: Warp) -> Tensor:
    """Offsets of a patch's voxels from its centre along one axis."""
    return torch.arange(edge, dtype=torch.float32, device=warp.images.device) - (edge - 1) / 2


def _weigh(position: Tensor, size: int) -> Tensor:
    """Weights (…, size) of linear interpolation between voxels 0 … size - 1 at `position` (…) in voxels; none beyond them."""
    return (1 - (position[..., None] - torch.arange(size, device=position.device)).abs()).clamp_(min=0)


def _bend(warp: Warp, patch: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """The same anywhere in the boxes. Every corner around a position is fetched by its number in the flat box: faster than grid_sample."""
    box = warp.labels.shape[1:]
    strides = [math.prod(box[axis + 1 :]) for axis in range(len(box))]
    first = torch.arange(len(warp.labels), dtype=torch.int32, device=warp.labels.device).view(-1, *(1,) * len(box)) * math.prod(box)
    nearest, corner, shares = first, first, []
    for position, stride in zip(_locate(warp, patch), strides):
        nearest = torch.add(nearest, position.round().int(), alpha=stride)
        corner = torch.add(corner, position.int(), alpha=stride)
        shares.append(position.frac_().flatten())
    index = corner.flatten().long()
    channels = [_interpolate(channel.flatten(), index, shares, strides).view(-1, *patch) for channel in warp.images]
    return channels, warp.labels.flatten().index_select(0, nearest.flatten()).view(-1, *patch)


def _interpolate(flat: Tensor, index: Tensor, shares: list[Tensor], strides: list[int]) -> Tensor:
    """Linear between the voxels `index` of a flat box and those one stride further on along each axis, by `shares` of the way.

    A function that named itself inside another would be a cycle of references, which keeps its tensors until Python collects garbage.
    """
    if not strides:
        return flat.index_select(0, index)
    near = _interpolate(flat, index, shares[1:], strides[1:])
    return near.lerp_(_interpolate(flat[strides[0] :], index, shares[1:], strides[1:]), shares[0])


def _locate(warp: Warp, patch: tuple[int, ...]) -> list[Tensor]:
    """Where the patch's voxels lie in the box with its border, in voxels: one tensor (n, *patch) per axis; those beyond lie on it."""
    count, dimension = warp.centres.shape
    offsets = [
        _make_steps(edge, warp).view(1, *(-1 if other == axis else 1 for other in range(dimension))) for axis, edge in enumerate(patch)
    ]
    displacements = _spread(warp.displacements, patch) if warp.displacements is not None else None
    positions = []
    for axis, size in enumerate(warp.labels.shape[1:]):
        position = warp.centres[:, axis].view(count, *(1,) * dimension)
        for other, offset in enumerate(offsets):
            position = position + warp.matrices[:, axis, other].view(count, *(1,) * dimension) * offset
        position = position if displacements is None else position + displacements[:, axis]
        positions.append(position.clamp_(0, size - BEHIND))
    return positions


def _spread(grid: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Displacements (n, dimension, *grid) at every voxel of the patch: linear between the points, of which the outer lie on its faces."""
    count, dimension = grid.shape[:2]
    matrices = []
    for points, edge in zip(grid.shape[2:], patch):
        weights = _weigh(torch.linspace(0, points - 1, edge, device=grid.device), points)
        matrices.append(weights.expand(count * dimension, -1, -1))
    return apply_axes(grid.flatten(0, 1), *matrices).view(count, dimension, *patch)
