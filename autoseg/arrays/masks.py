"""Masks of single objects, each cropped to its box: from a head's bins to voxels, what two share, and many on one label map."""

from dataclasses import dataclass

import numpy as np

from autoseg.arrays.boxes import order_by_score
from autoseg.arrays.cropping import Box, compute_bounding_box, crop

LEAST_SHARE = 0.5  # of an object's voxels that others must leave to it


@dataclass(frozen=True)
class FoundObject:
    """One object: its probability, or its mask (bool), inside `box` ((lo, hi) voxels per axis), score and class number (1 … N).

    `merged` tells that it was put together from the parts that several tiles saw.
    """

    box: Box
    probability: np.ndarray
    score: float
    class_number: int
    merged: bool = False

    def select(self, threshold: float) -> np.ndarray:
        """Which voxels of the box belong to it: bool."""
        return self.probability if self.probability.dtype == bool else self.probability >= threshold


@dataclass(frozen=True)
class PaintedObjects:
    """A label map of numbers 1 … M (int32, 0 is none) and the object of each number, by falling score; their masks may overlap."""

    ids: np.ndarray
    objects: tuple[FoundObject, ...]

    def make_label_map(self) -> np.ndarray:
        """The numbers as they are written: uint16, or uint32 where there are more than it holds."""
        return self.ids.astype(np.uint16 if len(self.objects) < 65536 else np.uint32)


def list_edges(objects: list[FoundObject]) -> np.ndarray:
    """The boxes of objects as an array (K, 2D) `[lo…, hi…]`."""
    return np.array([[*(low for low, _ in found.box), *(high for _, high in found.box)] for found in objects], dtype=np.int64)


def _interpolate(values: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    """Linear interpolation on the grid of `places`, one array of indices per axis; what lies beyond takes the border's value."""
    for axis, place in enumerate(places):
        size = values.shape[axis]
        place = np.clip(place, 0, size - 1)
        low = np.minimum(place.astype(np.int64), max(size - 2, 0))
        weight = (place - low).astype(np.float32).reshape(-1, *(1,) * (values.ndim - axis - 1))
        first = values.take(low, axis=axis)
        values = first + (values.take(np.minimum(low + 1, size - 1), axis=axis) - first) * weight
    return values


def paste_mask(mask: np.ndarray, frame: np.ndarray, shape: tuple[int, ...]) -> tuple[Box, np.ndarray]:
    """A head's answer (*bins), which fills `frame` (2D,), at the centres of the voxels in it: their box within `shape`, and float32 values.

    Nothing is rounded before it is sampled (detectron2's way, not torchvision's): bin b of M has its centre at (b + ½)/M of the frame.
    A frame beside the image gives an empty box.
    """
    dimension = len(shape)
    low, high = frame[:dimension].astype(np.float64), frame[dimension:].astype(np.float64)
    first = np.clip(np.ceil(low - 0.5), 0, shape).astype(int)
    last = np.maximum(np.clip(np.floor(high - 0.5) + 1, 0, shape).astype(int), first)
    places = [
        (np.arange(a, b) + 0.5 - start) * (bins / max(end - start, 1e-6)) - 0.5
        for a, b, start, end, bins in zip(first, last, low, high, mask.shape)
    ]
    return tuple((int(a), int(b)) for a, b in zip(first, last)), _interpolate(mask.astype(np.float32), places)


def resample_masks(masks: np.ndarray, frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Masks (K, *bins) that fill `frames` (K, 2D) on the bins of `others` (K, 2D), linearly; float32."""
    dimension = masks.ndim - 1
    values = masks.astype(np.float32)
    for axis in range(dimension):
        bins = masks.shape[axis + 1]
        low, size = frames[:, axis, None], np.maximum(frames[:, dimension + axis] - frames[:, axis], 1e-6)[:, None]
        step = (others[:, dimension + axis] - others[:, axis])[:, None] / bins
        place = np.clip((others[:, axis, None] + (np.arange(bins) + 0.5) * step - low) / size * bins - 0.5, 0, bins - 1)
        floor = np.minimum(place.astype(np.int64), max(bins - 2, 0))
        form = (len(masks), *(bins if other == axis else 1 for other in range(dimension)))
        weight = (place - floor).astype(np.float32).reshape(form)
        first = np.take_along_axis(values, floor.reshape(form), axis + 1)
        second = np.take_along_axis(values, np.minimum(floor + 1, bins - 1).reshape(form), axis + 1)
        values = first + (second - first) * weight
    return values


def intersect(a: Box, b: Box) -> Box:
    """What two boxes share; an axis on which they do not meet has no length.

    >>> intersect(((0, 4),), ((2, 9),)), intersect(((0, 4),), ((6, 9),))
    (((2, 4),), ((6, 6),))
    """
    return tuple((max(p, r), max(max(p, r), min(q, s))) for (p, q), (r, s) in zip(a, b))


def cut_out(mask: np.ndarray, box: Box, part: Box) -> np.ndarray:
    """The voxels of a mask on `box` that lie in `part`, a box within it (a view)."""
    return crop(mask, tuple((low - start, high - start) for (low, high), (start, _) in zip(part, box)))


def count_common(a: np.ndarray, box_a: Box, b: np.ndarray, box_b: Box) -> int:
    """Voxels that two cropped masks share."""
    part = intersect(box_a, box_b)
    return int(np.count_nonzero(cut_out(a, box_a, part) & cut_out(b, box_b, part)))


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """The largest component of a mask (neighbours by faces, edges and corners), the first of equals."""
    if mask.all():
        return mask
    from scipy import ndimage  # .3 s, which only the processes that need it should spend

    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count < 2:
        return mask
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1


def paint_objects(objects: list[FoundObject], shape: tuple[int, ...], threshold: float = 0.5) -> PaintedObjects:
    """Objects on one label map of `shape`, numbered by falling score; in whatever order they come the map is the same.

    None paints over a stronger one; one that loses more than half of its voxels to them is left out, of the others the largest part of
    what remains is painted. A probability belongs to its object from `threshold` on.
    """
    ids, kept = np.zeros(shape, dtype=np.int32), []
    scores = np.array([found.score for found in objects])
    for index in order_by_score(scores, list_edges(objects).reshape(len(objects), 2 * len(shape))):
        found = objects[index]
        place = crop(ids, found.box)
        mask = found.select(threshold)
        free = mask & (place == 0)
        voxels = np.count_nonzero(mask)
        if not voxels or np.count_nonzero(free) < LEAST_SHARE * voxels:
            continue
        kept.append(_tighten(found, mask))
        place[keep_largest(free)] = len(kept)
    return PaintedObjects(ids, tuple(kept))


def _tighten(found: FoundObject, mask: np.ndarray) -> FoundObject:
    """The object with its mask on the tight box around it."""
    part = compute_bounding_box(mask)
    box = tuple((start + low, start + high) for (start, _), (low, high) in zip(found.box, part))
    return FoundObject(box, crop(mask, part), found.score, found.class_number, found.merged)
