"""A network over a whole volume: overlapping tiles, Gaussian weights, optional mirroring."""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.arrays.tiles import compute_padding, make_gaussian, make_tiles
from autoseg.networks.devices import Compute
from autoseg.records.plan import Configuration

TILES_AT_ONCE = 2


def list_flips(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All combinations of mirrored axes, none first.

    >>> list_flips((0, 1))
    [(), (0,), (1,), (0, 1)]
    """
    return [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)]


@torch.inference_mode()
def predict_logits(
    network: torch.nn.Module, image: np.ndarray, background: tuple[float, ...], configuration: Configuration, compute: Compute, mirror: bool
) -> Tensor:
    """Logits (class, …) of a prepared image (channel, …) on its own voxels, float32 on the CPU.

    A 2D configuration goes over a volume slice by slice. Images smaller than the patch are padded with their background.
    """
    network.eval()
    if image.ndim - 1 > configuration.dimension:
        slices = [predict_logits(network, image[:, z], background, configuration, compute, mirror) for z in range(image.shape[1])]
        return torch.stack(slices, dim=1)
    patch, shape = configuration.patch_size, image.shape[1:]
    padding = compute_padding(shape, patch)
    padded = torch.from_numpy(pad_image(image, padding, background))
    weights = torch.from_numpy(make_gaussian(patch))
    flips = list_flips(configuration.mirror_axes if mirror else ())
    total: Tensor | None = None
    weight_sum = torch.zeros(padded.shape[1:])
    tiles = make_tiles(tuple(padded.shape[1:]), patch)
    for first in range(0, len(tiles), TILES_AT_ONCE):
        group = tiles[first : first + TILES_AT_ONCE]
        places = [tuple(slice(start, start + edge) for start, edge in zip(tile, patch)) for tile in group]
        answers = _run(network, torch.stack([padded[(slice(None), *place)] for place in places]), compute, flips)
        if total is None:
            total = torch.zeros((answers.shape[1], *padded.shape[1:]))
        for place, answer in zip(places, answers):
            total[(slice(None), *place)] += answer * weights
            weight_sum[place] += weights
    assert total is not None  # a volume has at least one tile
    kept = tuple(slice(before, before + size) for (before, _), size in zip(padding, shape))
    return total[(slice(None), *kept)] / weight_sum[kept]


def pad_image(image: np.ndarray, padding: list[tuple[int, int]], background: tuple[float, ...]) -> np.ndarray:
    """An image (channel, …) with so many voxels of each channel's background before and after each axis."""
    return np.stack([np.pad(channel, padding, constant_values=value) for channel, value in zip(image, background)])


def _run(network: torch.nn.Module, tiles: Tensor, compute: Compute, flips: list[tuple[int, ...]]) -> Tensor:
    """Mean logits over the flips for a batch of tiles (tile, channel, …), float32 on the CPU."""
    total = None
    for flip in flips:
        axes = [axis + 2 for axis in flip]
        with compute.autocast():
            logits = network(compute.place(tiles.flip(axes) if axes else tiles))[0].float()
        logits = logits.flip(axes) if axes else logits
        total = logits if total is None else total + logits
    assert total is not None  # no flip is the first of the flips
    return (total / len(flips)).cpu()


def upsample_slab(logits: Tensor, matrices: list[Tensor], low: int, high: int) -> Tensor:
    """Rows low … high - 1 of the first axis of the logits (class, …) resampled by one matrix per axis."""
    slab = torch.tensordot(matrices[0][low:high], logits, dims=([1], [1])).movedim(0, 1)
    for axis, matrix in enumerate(matrices[1:], start=2):
        if matrix.shape[0] != matrix.shape[1]:
            slab = torch.tensordot(matrix, slab, dims=([1], [axis])).movedim(0, axis)
    return slab


def compute_probabilities(logits: Tensor, regions: bool) -> Tensor:
    """logits (class, …) → probabilities of classes that exclude each other (softmax), or of regions, each by itself (sigmoid)."""
    return logits.sigmoid() if regions else F.softmax(logits, dim=0)
