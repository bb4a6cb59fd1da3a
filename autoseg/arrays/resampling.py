"""Separable resampling: one matrix per axis, exact to the spline it stands for, applied with BLAS."""

import numpy as np
from scipy import ndimage

ANISOTROPY = 3.0  # nnU-Net's threshold between full resampling and slice-wise resampling


def compute_resampled_shape(shape: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...]) -> tuple[int, ...]:
    """Voxels per axis after resampling from `spacing` to `target` (mm), half-even rounding as in the reference, at least 1.

    >>> compute_resampled_shape((10, 20), (3.0, 1.0), (1.5, 2.0))
    (20, 10)
    """
    return tuple(max(1, round(size * old / new)) for size, old, new in zip(shape, spacing, target))


def find_coarse_axis(current: tuple[float, ...], target: tuple[float, ...]) -> int | None:
    """The slice axis that is resampled by nearest neighbour, if the current or else the target spacing is anisotropic beyond 3.

    None in 2D, below the threshold, and where several axes share the largest spacing (the reference's rule).
    """
    if len(current) < 3:
        return None
    for spacing in (current, target):
        if max(spacing) / min(spacing) > ANISOTROPY:
            coarse = [axis for axis, value in enumerate(spacing) if value == max(spacing)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def make_resampling_matrix(size: int, new_size: int, order: int, antialias: bool = False) -> np.ndarray:
    """The linear operator (new_size, size) that resamples one axis with half-voxel-centred coordinates and replicated edges.

    order 3 is the interpolating cubic B-spline (Unser 1999), 1 linear, 0 nearest. `antialias` smooths before shrinking by a Gaussian of
    sigma = (factor - 1) / 2 voxels, scikit-image's convention. Equal to scipy.ndimage.zoom(grid_mode=True, mode="nearest").
    """
    identity = np.eye(size)
    if size == new_size:
        return identity.astype(np.float32)
    if order == 0:
        nearest = np.minimum(np.floor((np.arange(new_size) + 0.5) * size / new_size).astype(int), size - 1)
        return identity[nearest].astype(np.float32)
    factor = size / new_size
    if antialias and factor > 1:
        identity = ndimage.gaussian_filter1d(identity, (factor - 1) / 2, axis=0, mode="nearest")
    columns = [ndimage.zoom(column, new_size / size, order=order, mode="nearest", grid_mode=True) for column in identity.T]
    return np.stack(columns, axis=1).astype(np.float32)


def apply_matrices(array: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Applies one matrix to each of the last axes of a float32 array; those that shrink it most come first."""
    first = array.ndim - len(matrices)
    for index in sorted(range(len(matrices)), key=lambda i: matrices[i].shape[0] / matrices[i].shape[1]):
        matrix = matrices[index]
        if matrix.shape[0] == matrix.shape[1]:
            continue
        array = np.moveaxis(np.tensordot(matrix, array, axes=(1, first + index)), 0, first + index)
    return np.ascontiguousarray(array)


def _axis_matrices(
    shape: tuple[int, ...], new_shape: tuple[int, ...], order: int, coarse_axis: int | None, antialias: bool
) -> list[np.ndarray]:
    return [
        make_resampling_matrix(old, new, 0 if axis == coarse_axis else order, antialias)
        for axis, (old, new) in enumerate(zip(shape, new_shape))
    ]


def resample_image(image: np.ndarray, new_shape: tuple[int, ...], coarse_axis: int | None) -> np.ndarray:
    """An image (channel, …) on another number of voxels: cubic, anti-aliased when shrinking, clipped to each channel's own range."""
    if image.shape[1:] == new_shape:
        return image
    matrices = _axis_matrices(image.shape[1:], new_shape, 3, coarse_axis, antialias=True)
    axes = tuple(range(1, image.ndim))
    return np.clip(
        apply_matrices(image.astype(np.float32), matrices), image.min(axis=axes, keepdims=True), image.max(axis=axes, keepdims=True)
    )


def resample_label(label: np.ndarray, new_shape: tuple[int, ...], coarse_axis: int | None) -> np.ndarray:
    """A label map on another number of voxels: every value's mask linearly, the largest wins (lower value on ties)."""
    if label.shape == new_shape:
        return label
    matrices = _axis_matrices(label.shape, new_shape, 1, coarse_axis, antialias=False)
    best = np.full(new_shape, -1.0, dtype=np.float32)
    result = np.zeros(new_shape, dtype=label.dtype)
    for value in np.unique(label):
        share = apply_matrices((label == value).astype(np.float32), matrices)
        wins = share > best + 1e-6
        result[wins] = value
        best[wins] = share[wins]
    return result


def resample_ids(ids: np.ndarray, new_shape: tuple[int, ...], coarse_axis: int | None) -> np.ndarray:
    """A map of objects on another number of voxels, as resample_label gives it, but each object within its own box: any number of them.

    An object that no voxel would show keeps the one nearest to its own middle voxel, unless that is the last of another object.
    """
    if ids.shape == new_shape:
        return ids
    matrices = _axis_matrices(ids.shape, new_shape, 1, coarse_axis, antialias=False)
    best = np.full(new_shape, -1.0, dtype=np.float32)
    result = np.zeros(new_shape, dtype=ids.dtype)
    for value in (value for value in (-1, 0) if (ids == value).any()):
        _claim(value, apply_matrices((ids == value).astype(np.float32), matrices), best, result)
    boxes = [(number, box) for number, box in enumerate(ndimage.find_objects(np.maximum(ids, 0)), 1) if box is not None]
    for number, box in boxes:
        parts = [matrix[:, part] for matrix, part in zip(matrices, box)]
        rows = [np.flatnonzero(part.any(axis=1)) for part in parts]
        if all(own.size for own in rows):
            place = tuple(slice(own[0], own[-1] + 1) for own in rows)
            share = (ids[box] == number).astype(np.float32)
            for axis, (part, own) in enumerate(zip(parts, place)):  # apply_matrices would take a square part for one that changes nothing
                share = np.moveaxis(np.tensordot(part[own], share, axes=(1, axis)), 0, axis)
            _claim(number, share, best[place], result[place])
    _rescue(ids, boxes, result)
    return result


def _claim(value: int, share: np.ndarray, best: np.ndarray, result: np.ndarray) -> None:
    """Writes `value` where its share is the largest so far, in place."""
    wins = share > best + 1e-6
    result[wins] = value
    best[wins] = share[wins]


def _rescue(ids: np.ndarray, boxes: list[tuple[int, tuple[slice, ...]]], result: np.ndarray) -> None:
    """Gives each object that has vanished from `result` one voxel, in place."""
    counts = np.bincount(np.maximum(result, 0).ravel(), minlength=max((number for number, _ in boxes), default=0) + 1)
    for number, box in boxes:
        if counts[number]:
            continue
        own = np.argwhere(ids[box] == number) + [part.start for part in box]
        middle = own[np.argmin(((own - own.mean(axis=0)) ** 2).sum(axis=1))]
        voxel = tuple(((middle + 0.5) * np.array(result.shape) / np.array(ids.shape)).astype(int))
        holder = result[voxel]
        if holder <= 0 or counts[holder] > 1:
            counts[max(holder, 0)] -= 1
            result[voxel] = number
            counts[number] = 1


def make_probability_matrices(
    shape: tuple[int, ...], new_shape: tuple[int, ...], current: tuple[float, ...], target: tuple[float, ...]
) -> list[np.ndarray]:
    """The per-axis matrices that bring logits from the network's grid (`target` spacing) back to the scan's (`current`): linear."""
    return _axis_matrices(shape, new_shape, 1, find_coarse_axis(target, current), antialias=False)
