"""How often and along which axes a U-Net pools, and which patch that allows (rules of nnU-Net, Nature Methods 2021, Methods)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_EDGE = 4  # voxels that a feature map keeps along a pooled axis
PADDING = 0.03  # of an axis that a patch may stick out of a scan
ANISOTROPY = 2.0  # spacing ratio below which axes are pooled together and share kernels of 3


@dataclass(frozen=True)
class Topology:
    """Strides and kernel sizes per stage (strides[0] is all ones), the patch they allow, and the divisor per axis."""

    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    divisors: tuple[int, ...]


def decide_topology(spacing: Sequence[float], patch: Sequence[float]) -> Topology:
    """Pools until a feature map would be smaller than 4 voxels; coarse axes wait until the others have caught up.

    spacing in mm, patch in voxels (a half voxel, as in the median of an even number of scans, counts); the patch is rounded up to a
    multiple of the divisors.

    >>> decide_topology((1.0, 1.0, 1.0), (36, 50, 35)).patch_size
    (40, 56, 40)
    """
    dimension = len(patch)
    sizes, steps = [float(size) for size in patch], [float(step) for step in spacing]
    kernel = [1] * dimension
    strides, kernels = [(1,) * dimension], []
    while True:
        pooled = _choose_pooled_axes(sizes, steps)
        if not pooled:
            break
        finest = min(steps)
        kernel = [3 if steps[axis] / finest < ANISOTROPY else kernel[axis] for axis in range(dimension)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(dimension)))
        for axis in pooled:
            sizes[axis] = math.ceil(sizes[axis] / 2)
            steps[axis] *= 2
    kernels.append((3,) * dimension)
    divisors = tuple(math.prod(stride[axis] for stride in strides) for axis in range(dimension))
    rounded = tuple(math.ceil(size / divisor) * divisor for size, divisor in zip(patch, divisors))
    return Topology(tuple(strides), tuple(kernels), rounded, divisors)


def _choose_pooled_axes(sizes: list[float], steps: list[float]) -> list[int]:
    large = [axis for axis, size in enumerate(sizes) if size >= 2 * SMALLEST_EDGE]
    if not large:
        return []
    finest = min(steps[axis] for axis in large)
    chosen = [axis for axis in large if steps[axis] / finest < ANISOTROPY]
    if len(chosen) == 1 and sizes[chosen[0]] < 3 * SMALLEST_EDGE:
        return []
    return chosen


def make_initial_patch(spacing: Sequence[float], median_shape: Sequence[float]) -> tuple[float, ...]:
    """A patch that is a cube (square) in mm with the voxels of 256³ (2048²), clipped to the median scan."""
    inverse = [1 / step for step in spacing]
    volume = 256.0**3 if len(spacing) == 3 else 2048.0**2
    scale = (volume / math.prod(inverse)) ** (1 / len(spacing))
    return tuple(min(float(round(edge * scale)), float(size)) for edge, size in zip(inverse, median_shape))


def shrink_patch(spacing: Sequence[float], topology: Topology, median_shape: Sequence[float]) -> Topology:
    """One step smaller: the axis that covers most of its scan (the last on ties) loses the divisor that the smaller patch will have.

    An axis keeps one voxel at least; where no axis can give one away the patch stays.
    """
    patch = topology.patch_size
    for axis in sorted(range(len(patch)), key=lambda index: (patch[index] / median_shape[index], index), reverse=True):
        step = decide_topology(spacing, _reduce(patch, axis, topology.divisors[axis])).divisors[axis]
        if patch[axis] > step:
            return decide_topology(spacing, _reduce(patch, axis, step))
    return topology


def _reduce(patch: tuple[int, ...], axis: int, step: int) -> tuple[int, ...]:
    return tuple(size - step if index == axis else size for index, size in enumerate(patch))


def round_to_scan(spacing: Sequence[float], patch: Sequence[float]) -> Topology:
    """The topology of a patch brought to its divisors: down, or up by PADDING at most.

    Padding costs time and teaches nothing, but for a voxel or two a whole divisor need not be given away. Where the smaller patch is
    halved less often, so be it.
    """
    topology = decide_topology(spacing, patch)
    limits = [size * (1 + PADDING) for size in patch]
    rows = zip(topology.patch_size, limits, topology.divisors)
    wanted = [edge if edge <= limit else max(edge - step, 1) for edge, limit, step in rows]
    trial = decide_topology(spacing, wanted)
    return trial if all(edge <= limit for edge, limit in zip(trial.patch_size, limits)) else topology
