"""Cutting patches out of what was read: copies where they lie on voxels, interpolation on the training device where they do not."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.training.augmentation import apply_axes
from autoseg.training.sampling import Sample


@dataclass(frozen=True)
class Warp:
    """Samples of a batch that are interpolated, all boxes padded to one shape; `rows` are their places in the batch.

    `straight`: no axis is turned or bent, so that each is interpolated by itself, which is much faster.

    images (n, channel, *box) less their background, labels (n, *box + 2) int16 within a border of 0; matrices (n, dimension, dimension) and
    centres (n, dimension) in voxels of the box; backgrounds (n, channel); displacements (n, dimension, *grid), or nothing where no sample
    has any.
    """

    straight: bool
    rows: Tensor
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


def make_warps(samples: list[Sample], parts: list[tuple[np.ndarray, np.ndarray]]) -> list[Warp]:
    """The warps of the samples of a batch that do not lie on voxels; parts (image, label) inside their boxes, of every sample."""
    kinds: dict[bool, list[int]] = {True: [], False: []}
    for row, sample in enumerate(samples):
        if not sample.on_voxels:
            straight = sample.displacements is None and np.array_equal(sample.matrix, np.diag(np.diag(sample.matrix)))
            kinds[bool(straight)].append(row)
    return [_make_warp(straight, rows, samples, parts) for straight, rows in kinds.items() if rows]


def _make_warp(straight: bool, rows: list[int], samples: list[Sample], parts: list[tuple[np.ndarray, np.ndarray]]) -> Warp:
    chosen = [samples[row] for row in rows]
    sizes = np.array([parts[row][1].shape for row in rows])
    channels, dimension = len(chosen[0].background), sizes.shape[1]
    box = tuple(int(edge) for edge in sizes.max(axis=0))
    images = np.zeros((len(rows), channels, *box), dtype=np.float32)
    labels = np.zeros((len(rows), *(edge + 2 for edge in box)), dtype=np.int16)
    backgrounds = np.array([sample.background for sample in chosen], dtype=np.float32)
    for place, row in enumerate(rows):
        inside = [slice(0, size) for size in sizes[place]]
        bordered = [slice(1, size + 1) for size in sizes[place]]
        image, label = parts[row]
        np.subtract(image, backgrounds[place].reshape(-1, *(1,) * dimension), out=images[place][(slice(None), *inside)])
        labels[place][tuple(bordered)] = label
    signs = np.array([[-1.0 if axis in sample.flips else 1.0 for axis in range(dimension)] for sample in chosen])
    lows = np.array([[low for low, _ in sample.box] for sample in chosen])
    return Warp(
        straight=straight,
        rows=torch.tensor(rows),
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        matrices=torch.from_numpy((np.stack([sample.matrix for sample in chosen]) * signs[:, None]).astype(np.float32)),
        centres=torch.from_numpy((np.array([sample.centre for sample in chosen]) - lows).astype(np.float32)),
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
    displacements = _spread(warp.displacements, patch) if warp.displacements is not None else None
    interpolated = _interpolate_axes(warp, patch) if warp.straight else _interpolate(warp, patch, displacements)
    images[warp.rows] = interpolated.add_(warp.backgrounds.view(*warp.backgrounds.shape, *(1,) * len(patch)))
    labels[warp.rows] = _take_nearest(warp, _locate(warp, patch, displacements, [1.0] * len(patch), [1.0] * len(patch)))


def _interpolate(warp: Warp, patch: tuple[int, ...], displacements: Tensor | None) -> Tensor:
    """Linear interpolation anywhere in the boxes, 0 beyond: (n, channel, *patch)."""
    box = warp.images.shape[2:]
    scales = [2 / edge for edge in box]  # grid_sample counts from -1 to 1 between the box's borders, the last axis first
    grid = torch.stack(_locate(warp, patch, displacements, scales, [1 / edge - 1 for edge in box])[::-1], dim=-1)
    return F.grid_sample(warp.images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _interpolate_axes(warp: Warp, patch: tuple[int, ...]) -> Tensor:
    """The same where the matrices are diagonal: one small matrix per axis."""
    channels = warp.images.shape[1]
    weights = []
    for axis, (edge, size) in enumerate(zip(patch, warp.images.shape[2:])):
        steps = torch.arange(edge, dtype=torch.float32, device=warp.images.device) - (edge - 1) / 2
        position = warp.centres[:, axis, None] + warp.matrices[:, axis, axis, None] * steps
        weights.append(_weigh(position, size).repeat_interleave(channels, dim=0))
    return apply_axes(warp.images.flatten(0, 1), *weights).unflatten(0, (-1, channels))


def _weigh(position: Tensor, size: int) -> Tensor:
    """Weights (…, size) of linear interpolation between voxels 0 … size - 1 at `position` (…) in voxels; none beyond them."""
    return (1 - (position[..., None] - torch.arange(size, device=position.device)).abs()).clamp_(min=0)


def _locate(warp: Warp, patch: tuple[int, ...], displacements: Tensor | None, scales: list[float], shifts: list[float]) -> list[Tensor]:
    """Where the patch's voxels lie in the box, in voxels times `scales` plus `shifts`: one tensor (n, *patch) per axis of the box."""
    count, dimension = warp.centres.shape
    offsets = []
    for axis, edge in enumerate(patch):
        steps = torch.arange(edge, dtype=torch.float32, device=warp.images.device) - (edge - 1) / 2
        offsets.append(steps.view(1, *(-1 if other == axis else 1 for other in range(dimension))))
    positions = []
    for axis, (scale, shift) in enumerate(zip(scales, shifts)):
        position = (warp.centres[:, axis] * scale + shift).view(count, *(1,) * dimension)
        for other, offset in enumerate(offsets):
            position = position + (warp.matrices[:, axis, other] * scale).view(count, *(1,) * dimension) * offset
        positions.append(position if displacements is None else position + displacements[:, axis] * scale)
    return positions


def _spread(grid: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Displacements (n, dimension, *grid) at every voxel of the patch: linear between the points, of which the outer lie on its faces."""
    count, dimension = grid.shape[:2]
    matrices = []
    for points, edge in zip(grid.shape[2:], patch):
        weights = _weigh(torch.linspace(0, points - 1, edge, device=grid.device), points)
        matrices.append(weights.expand(count * dimension, -1, -1))
    return apply_axes(grid.flatten(0, 1), *matrices).view(count, dimension, *patch)


def _take_nearest(warp: Warp, positions: list[Tensor]) -> Tensor:
    """The label of the voxel nearest to positions, which count from the border around the box: 0 beyond the image."""
    box = warp.labels.shape[1:]
    index = torch.arange(len(warp.labels), device=warp.labels.device).view(-1, *(1,) * len(box)) * math.prod(box)
    for axis, position in enumerate(positions):
        nearest = position.round_().clamp_(0, box[axis] - 1)
        index = index + nearest.to(torch.int64).mul_(math.prod(box[axis + 1 :]))
    return warp.labels.view(-1).take(index)
