"""How often and along which axes a U-Net pools, and which patch that allows (rules of nnU-Net, Nature Methods 2021, Methods)."""

from dataclasses import dataclass

import numpy as np

SMALLEST_EDGE = 4  # voxels that a feature map keeps along a pooled axis
ANISOTROPY = 2.0  # spacing ratio below which axes are pooled together and share kernels of 3


@dataclass(frozen=True)
class Topology:
    """Strides and kernel sizes per stage (strides[0] is all ones), the patch they allow, and the divisor per axis."""

    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    divisors: tuple[int, ...]


def decide_topology(spacing: tuple[float, ...], patch: tuple[int, ...]) -> Topology:
    """Pools until a feature map would be smaller than 4 voxels; coarse axes wait until the others have caught up.

    spacing in mm, patch in voxels; the patch is rounded up to a multiple of the divisors.

    >>> decide_topology((1.0, 1.0, 1.0), (36, 50, 35)).patch_size
    (40, 56, 40)
    """
    dimension = len(patch)
    sizes, steps = list(patch), [float(step) for step in spacing]
    kernel = [1] * dimension
    strides, kernels = [(1,) * dimension], []
    while True:
        pooled = _choose_pooled_axes(sizes, steps)
        kernel = [3 if steps[axis] / min(steps) < ANISOTROPY else kernel[axis] for axis in range(dimension)]
        if not pooled:
            break
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(dimension)))
        for axis in pooled:
            sizes[axis] = -(-sizes[axis] // 2)
            steps[axis] *= 2
    kernels.append((3,) * dimension)
    divisors = tuple(int(np.prod([stride[axis] for stride in strides])) for axis in range(dimension))
    rounded = tuple(-(-size // divisor) * divisor for size, divisor in zip(patch, divisors))
    return Topology(tuple(strides), tuple(kernels), rounded, divisors)


def _choose_pooled_axes(sizes: list[int], steps: list[float]) -> list[int]:
    large = [axis for axis, size in enumerate(sizes) if size >= 2 * SMALLEST_EDGE]
    if not large:
        return []
    finest = min(steps[axis] for axis in large)
    chosen = [axis for axis in large if steps[axis] / finest < ANISOTROPY]
    if len(chosen) == 1 and sizes[chosen[0]] < 3 * SMALLEST_EDGE:
        return []
    return chosen


def make_initial_patch(spacing: tuple[float, ...], median_shape: tuple[int, ...]) -> tuple[int, ...]:
    """A patch that is a cube (square) in mm with the voxels of 256³ (2048²), clipped to the median scan."""
    inverse = 1 / np.array(spacing)
    volume = 256.0**3 if len(spacing) == 3 else 2048.0**2
    edges = np.rint(inverse * (volume / np.prod(inverse)) ** (1 / len(spacing)))
    return tuple(int(min(edge, size)) for edge, size in zip(edges, median_shape))


def shrink_patch(spacing: tuple[float, ...], patch: tuple[int, ...], median_shape: tuple[int, ...]) -> Topology:
    """One step smaller: the axis that covers most of its scan (the last on ties) loses the divisor that the smaller patch will have."""
    covered = np.array(patch) / np.array(median_shape)
    axis = int(np.argsort(covered)[-1])
    divisors = decide_topology(spacing, patch).divisors
    trial = tuple(size - divisors[axis] if i == axis else size for i, size in enumerate(patch))
    step = decide_topology(spacing, trial).divisors[axis]
    return decide_topology(spacing, tuple(size - step if i == axis else size for i, size in enumerate(patch)))
