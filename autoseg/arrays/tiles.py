"""Where a sliding window stands, and how its answers are weighted."""

import math
from itertools import pairwise, product

import numpy as np

GROWTH = {2: 2, 3: 1}  # by dimension: times the patch's edge that a detector's tile may have; in 3D memory is short
TILE_PATCHES = {dimension: growth**dimension for dimension, growth in GROWTH.items()}  # times the patch's voxels


def make_positions(size: int, patch: int, step: float = 0.5) -> list[int]:
    """Evenly spread tile starts along one axis: first 0, last size - patch, at most `step` patches apart.

    >>> make_positions(110, 64)
    [0, 23, 46]
    """
    if size <= patch:
        return [0]
    count = int(np.ceil((size - patch) / (step * patch))) + 1
    return [round(k * (size - patch) / (count - 1)) for k in range(count)]


def make_tiles(shape: tuple[int, ...], patch: tuple[int, ...], step: float = 0.5) -> list[tuple[int, ...]]:
    """Starts of all tiles of a volume at least as large as the patch, in array order."""
    return list(product(*(make_positions(size, edge, step) for size, edge in zip(shape, patch))))


def make_gaussian(patch: tuple[int, ...]) -> np.ndarray:
    """Weights of a tile: a Gaussian of sigma = patch / 8 around its centre, largest 1, never 0. float32.

    nnU-Net (Nature Methods 2021, Methods, inference): borders of a tile are less certain than its centre.
    """
    weights = np.ones((), dtype=np.float64)
    for edge in patch:
        offset = np.arange(edge) - edge // 2
        weights = np.multiply.outer(weights, np.exp(-0.5 * (offset / (edge / 8)) ** 2))
    weights = np.maximum(weights / weights.max(), 1e-4)
    return weights.astype(np.float32)


def compute_padding(shape: tuple[int, ...], patch: tuple[int, ...]) -> list[tuple[int, int]]:
    """Voxels to add before and after each axis so that the patch fits; the odd one goes behind."""
    missing = [max(edge - size, 0) for size, edge in zip(shape, patch)]
    return [(lack // 2, lack - lack // 2) for lack in missing]


def choose_tile(shape: tuple[int, ...], patch: tuple[int, ...], overlap: tuple[int, ...], divisors: tuple[int, ...]) -> tuple[int, ...]:
    """Voxels that a detector sees at once: as few tiles as fit, no larger than the image and `overlap` need, in multiples of `divisors`.

    In 2D, without gradients, their edges are up to twice the patch's, so that fewer objects lie on seams and less is seen twice.

    >>> choose_tile((512, 300), (256, 256), (64, 64), (16, 16)), choose_tile((600, 40), (256, 256), (64, 64), (16, 16))
    ((512, 304), (336, 48))
    """
    growth, edges = GROWTH[len(shape)], []
    for size, edge, common, divisor in zip(shape, patch, overlap, divisors):
        count = 1 if size <= growth * edge else math.ceil((size - common) / (growth * edge - common))
        edges.append(math.ceil((size + (count - 1) * common) / count / divisor) * divisor)
    return tuple(edges)


def choose_overlap(patch: tuple[int, ...], largest: tuple[float, ...]) -> tuple[int, ...]:
    """How far tiles overlap so that an object of the sides `largest` (voxels) lies whole in one: with a margin of 4 on either side, and

    between a quarter and a half of the patch.

    >>> choose_overlap((128, 128, 64), (40.0, 5.0, 90.0))
    (48, 32, 32)
    """
    return tuple(int(np.clip(round(side) + 8, edge // 4, edge // 2)) for edge, side in zip(patch, largest))


def make_cores(size: int, patch: int, starts: list[int]) -> list[tuple[int, int]]:
    """The part of one axis that each tile answers for, up to the middle of each overlap; together they are the axis.

    >>> make_cores(110, 64, [0, 23, 46])
    [(0, 43), (43, 66), (66, 110)]
    """
    borders = [0, *((after + before + patch) // 2 for before, after in pairwise(starts)), size]
    return list(pairwise(borders))
