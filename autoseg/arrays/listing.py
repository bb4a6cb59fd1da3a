"""What is told of found objects: boxes, places, sizes; on the grid of the scan's own file."""

import numpy as np

from autoseg.arrays.cropping import crop
from autoseg.arrays.masks import FoundObject, PaintedObjects
from autoseg.records.grid import Grid
from autoseg.records.objects import ListedObject


def turn_objects(painted: PaintedObjects, order: tuple[int, ...], backwards: tuple[bool, ...]) -> PaintedObjects:
    """The same on a grid whose axis k runs along axis order[k] of this one, from its end where backwards[k]."""
    reversed_axes = tuple(axis for axis, is_reversed in enumerate(backwards) if is_reversed)
    shape = tuple(painted.ids.shape[axis] for axis in order)

    def turn(found: FoundObject) -> FoundObject:
        box = tuple(found.box[axis] for axis in order)
        box = tuple((size - high, size - low) if b else (low, high) for (low, high), size, b in zip(box, shape, backwards))
        mask = np.flip(found.probability.transpose(order), reversed_axes)
        return FoundObject(box, mask, found.score, found.class_number, found.merged)

    return PaintedObjects(np.flip(painted.ids.transpose(order), reversed_axes), tuple(turn(found) for found in painted.objects))


def encode_runs(mask: np.ndarray) -> tuple[int, ...]:
    """Lengths of the runs of False and True in turn, row by row; the first, of False, may be 0.

    >>> encode_runs(np.array([[1, 1, 0], [0, 1, 0]], bool))
    (0, 2, 2, 1, 1)
    """
    flat = mask.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends.tolist(), flat.size])
    return tuple(int(run) for run in ([0, *runs] if flat[:1].any() else runs))


def decode_runs(runs: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of encode_runs: bool of `shape`.

    >>> decode_runs((0, 2, 2, 1, 1), (2, 3)).astype(int).tolist()
    [[1, 1, 0], [0, 1, 0]]
    """
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)


def list_objects(painted: PaintedObjects, names: tuple[str, ...], grid: Grid) -> tuple[ListedObject, ...]:
    """What is told of each object; `names` are those of classes 1 … N, `painted` lies on the grid and holds masks."""
    return tuple(_list_object(number, found, painted.ids, names, grid) for number, found in enumerate(painted.objects, 1))


def _list_object(number: int, found: FoundObject, ids: np.ndarray, names: tuple[str, ...], grid: Grid) -> ListedObject:
    spacing, mask = np.array(grid.spacing), found.select(0.5)
    low, high = (np.array(edges) for edges in zip(*found.box))
    voxels = int(np.count_nonzero(mask))
    centroid = low + np.argwhere(mask).mean(axis=0) + 0.5
    size = voxels * float(spacing.prod())
    covered = (mask != (crop(ids, found.box) == number)).any()
    return ListedObject(
        id=number,
        class_name=names[found.class_number - 1],
        score=round(found.score, 4),
        box=(*low.tolist(), *high.tolist()),
        box_mm=_round([*(low * spacing), *(high * spacing)]),
        centroid=_round(centroid),
        world=_round(find_world(centroid, grid)),
        voxels=voxels,
        size=round(size, 4),
        diameter=round(compute_diameter(size, mask.ndim), 4),
        touches_border=bool((low == 0).any() or (high == grid.shape).any()),
        merged=found.merged,
        rle=encode_runs(mask) if covered else (),
    )


def _round(values: np.ndarray | list[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in values)


def compute_diameter(size: float, dimension: int) -> float:
    """Diameter of the disc of an area, or of the ball of a volume.

    >>> round(compute_diameter(np.pi, 2), 3), round(compute_diameter(np.pi / 6, 3), 3)
    (2.0, 1.0)
    """
    return float(2 * np.sqrt(size / np.pi) if dimension == 2 else np.cbrt(6 * size / np.pi))


def find_world(place: np.ndarray, grid: Grid) -> np.ndarray:
    """Where a place in voxel edges (array order) lies in the world: x, y, z in mm; ITK counts from the first voxel's centre."""
    index = (place - 0.5)[::-1]
    dimension = len(index)
    return np.array(grid.origin) + np.array(grid.direction).reshape(dimension, dimension) @ (index * np.array(grid.spacing)[::-1])
