"""Crop to what an image shows, and the way back."""

from typing import Any

import numpy as np

Box = tuple[tuple[int, int], ...]


def compute_nonzero_mask(image: np.ndarray) -> np.ndarray:
    """Where any channel of `image` (channel, …) is not 0, holes filled: bool, without the channel axis.

    The reference's rule (nnU-Net, Nature Methods 2021, supplementary note 2: crop to the nonzero region).
    """
    mask = (image != 0).any(axis=0)
    if mask.all():
        return mask
    from scipy import ndimage  # .3 s, which only the processes that measure need to spend

    return ndimage.binary_fill_holes(mask)


def compute_bounding_box(mask: np.ndarray) -> Box:
    """Tight half-open box [(low, high), …] in voxels around the true voxels; the whole array where there are none.

    >>> compute_bounding_box(np.array([0, 1, 1, 0], bool))
    ((1, 3),)
    """
    if not mask.any():
        return tuple((0, size) for size in mask.shape)
    box = []
    for axis in range(mask.ndim):
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append((int(where[0]), int(where[-1]) + 1))
    return tuple(box)


def crop(array: np.ndarray, box: Box) -> np.ndarray:
    """The part of the last axes inside the box (a view); leading axes are kept whole."""
    place: tuple[Any, ...] = (..., *(slice(low, high) for low, high in box))
    return array[place]


def paste(part: np.ndarray, shape: tuple[int, ...], box: Box, fill: float = 0) -> np.ndarray:
    """Inverse of crop: an array of `shape` (the last axes) filled with `fill`, with `part` inside the box."""
    whole = np.full((*part.shape[: part.ndim - len(shape)], *shape), fill, dtype=part.dtype)
    crop(whole, box)[...] = part
    return whole
