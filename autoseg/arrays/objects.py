"""Maps of objects: numbers settled where objects overlap, what is measured of each object, and voxels drawn from each."""

import numpy as np

from autoseg.arrays.labels import QUARTILES, compute_centre, draw_places, find_values, pack_voxels, unpack_voxels
from autoseg.records.fingerprint import NMS_LEVELS, ClassObjects, MeasuredObjects

TINY = 4  # voxels below which an object can hardly be learned
PAIRS_AT_ONCE = 1_000_000  # pairs of boxes compared at a time: 100 MB


def paint_masks(places: list[np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """One map of masks that may overlap, each the flat indices of its voxels into an array of `shape`, ascending.

    Returns int32 ids (mask k has number k + 1) and how many voxels belonged to more than one mask; each of those goes to the smallest of
    its masks, on ties by where they lie, so that the order of the masks does not matter.

    >>> paint_masks([np.array([0, 1, 2]), np.array([2, 3])], (5,))
    (array([1, 1, 2, 2, 0], dtype=int32), 1)
    """
    ids = np.zeros(int(np.prod(shape)), dtype=np.int32)
    covered = np.zeros(ids.size, dtype=bool)
    contested = np.zeros(ids.size, dtype=bool)
    for index in sorted(range(len(places)), key=lambda k: (-places[k].size, places[k].tobytes())):
        own = places[index]
        contested[own] |= covered[own]
        covered[own] = True
        ids[own] = index + 1
    return ids.reshape(shape), int(np.count_nonzero(contested))


def number_objects(values: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """The positive values of an integer map numbered 1 … M in ascending order, int32, and those values; all others become 0.

    >>> number_objects(np.array([0, 70, 5, 70]))
    (array([0, 2, 1, 2], dtype=int32), (5, 70))
    """
    found = [value for value in find_values(values) if value > 0]
    ids = np.zeros(values.shape, dtype=np.int32)
    positive = values > 0
    ids[positive] = np.searchsorted(found, values[positive]) + 1
    return ids, tuple(found)


def look_up_classes(ids: np.ndarray, classes: tuple[int, ...]) -> np.ndarray:
    """The class numbers of a map of ids 0 … M: 0 stays background and -1 to be ignored. int16.

    >>> look_up_classes(np.array([0, 2, 1, -1]), (1, 3)).tolist()
    [0, 3, 1, -1]
    """
    return np.array([0, *classes, -1], dtype=np.int16)[ids]


def measure_map(ids: np.ndarray, classes: tuple[int, ...]) -> MeasuredObjects:
    """What there is to know of the objects 1 … M of a map (z, y, x) or (y, x), each with at least one voxel; `classes` are theirs.

    Overlaps are not in a map any more: `overlapping` and `lost` are 0 here.
    """
    from scipy import ndimage  # .3 s, which only the processes that measure need to spend

    positive = np.maximum(ids, 0)
    parts = ndimage.find_objects(positive, max_label=len(classes))
    boxes = np.array([[*(part.start for part in box), *(part.stop for part in box)] for box in parts], dtype=np.int64)
    boxes = boxes.reshape(-1, 2 * ids.ndim)
    voxels = np.bincount(positive.ravel(), minlength=len(classes) + 1)[1:]
    low, high = boxes[:, : ids.ndim], boxes[:, ids.ndim :]
    numbers = np.array(classes, dtype=np.int64)
    return MeasuredObjects(
        boxes=pack_voxels(boxes),
        voxels=pack_voxels(voxels),
        classes=pack_voxels(numbers),
        touching=_count_touching(positive, len(classes)),
        on_border=int(((low == 0) | (high == np.array(ids.shape))).any(axis=1).sum()),
        in_parts=sum(_is_in_parts(ids[box] == number) for number, box in enumerate(parts, 1)),
        tiny=int((voxels < TINY).sum()),
        overlapping=0,
        lost=0,
        lost_to_nms=count_lost_to_nms(boxes, numbers),
    )


def unpack_objects(measured: MeasuredObjects, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 2 · dimension), voxels (n,) and class numbers (n,) of measured objects."""
    boxes = unpack_voxels(measured.boxes, 2 * dimension)
    return boxes, unpack_voxels(measured.voxels, 1)[:, 0], unpack_voxels(measured.classes, 1)[:, 0]


def _count_touching(ids: np.ndarray, count: int) -> int:
    """Objects with a face neighbour of another object."""
    touching = np.zeros(count + 1, dtype=bool)
    for axis in range(ids.ndim):
        one, other = np.moveaxis(ids, axis, 0)[:-1], np.moveaxis(ids, axis, 0)[1:]
        meet = (one != other) & (one > 0) & (other > 0)
        touching[one[meet]] = True
        touching[other[meet]] = True
    return int(touching.sum())


def _is_in_parts(mask: np.ndarray) -> bool:
    """Whether a mask has several components, connected by faces, edges and corners."""
    from scipy import ndimage

    return bool(ndimage.label(mask, structure=np.ones((3,) * mask.ndim))[1] > 1)


def count_lost_to_nms(boxes: np.ndarray, classes: np.ndarray) -> tuple[int, ...]:
    """How many of these boxes (n, 2 · dimension) greedy NMS among those of one class would delete at each of NMS_LEVELS.

    Boxes have no scores: the larger goes before the smaller, and of equals the first.
    """
    dimension = boxes.shape[1] // 2
    sizes = (boxes[:, dimension:] - boxes[:, :dimension]).prod(axis=1)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty(len(boxes), dtype=np.int64)
    rank[order] = np.arange(len(boxes))
    pairs, overlaps = _find_overlapping(boxes, classes, NMS_LEVELS[0])
    strong = np.minimum(rank[pairs[:, 0]], rank[pairs[:, 1]])
    weak = np.maximum(rank[pairs[:, 0]], rank[pairs[:, 1]])
    by_strength = np.argsort(strong, kind="stable")  # whether a box stays is settled before it deletes others
    lost = []
    for level in NMS_LEVELS:
        kept = np.ones(len(boxes), dtype=bool)
        chosen = by_strength[overlaps[by_strength] > level]
        for one, other in zip(strong[chosen].tolist(), weak[chosen].tolist()):
            if kept[one]:
                kept[other] = False
        lost.append(int((~kept).sum()))
    return tuple(lost)


def _find_overlapping(boxes: np.ndarray, classes: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (k, 2) of boxes of one class whose IoU is above `level`, and their IoUs: a sweep along the axis with fewest candidates."""
    dimension = boxes.shape[1] // 2
    sweeps = []
    for axis in range(dimension):
        order = np.argsort(boxes[:, axis], kind="stable")
        ends = np.searchsorted(boxes[order, axis], boxes[order, dimension + axis], side="left")
        sweeps.append((int((ends - np.arange(len(boxes)) - 1).sum()), order, ends))
    _, order, ends = min(sweeps, key=lambda sweep: sweep[0])
    counts = ends - np.arange(len(boxes)) - 1  # boxes that begin before this one ends
    found: list[np.ndarray] = [np.empty((0, 2), dtype=np.int64)]
    overlaps: list[np.ndarray] = [np.empty(0)]
    groups = np.cumsum(counts) // PAIRS_AT_ONCE
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        first = np.repeat(rows, counts[rows])
        offset = np.arange(len(first)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        pairs = np.stack([order[first], order[first + 1 + offset]], axis=1)
        pairs = pairs[classes[pairs[:, 0]] == classes[pairs[:, 1]]]
        own = compute_pair_overlaps(boxes[pairs[:, 0]], boxes[pairs[:, 1]])
        found.append(pairs[own > level])
        overlaps.append(own[own > level])
    return np.concatenate(found), np.concatenate(overlaps)


def compute_pair_overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of box k of `one` and box k of `other` (n, 2 · dimension), (n,).

    >>> compute_pair_overlaps(np.array([[0, 0, 2, 2]]), np.array([[0, 1, 2, 3]])).round(3).tolist()
    [0.333]
    """
    dimension = one.shape[1] // 2
    low = np.maximum(one[:, :dimension], other[:, :dimension])
    high = np.minimum(one[:, dimension:], other[:, dimension:])
    shared = np.maximum(high - low, 0).astype(np.float64).prod(axis=1)
    sizes = [(boxes[:, dimension:] - boxes[:, :dimension]).astype(np.float64).prod(axis=1) for boxes in (one, other)]
    return shared / (sizes[0] + sizes[1] - shared)


def measure_class(ids: np.ndarray, measured: MeasuredObjects, number: int, name: str, spacing: tuple[float, ...]) -> ClassObjects:
    """Volume, objects (counted by id) and centre of class `number` in a map that measure_map has measured; spacing in mm, array order."""
    boxes, voxels, classes = unpack_objects(measured, ids.ndim)
    own = classes == number
    if not own.any():
        return ClassObjects(name=name, voxels=0, volume=0.0, objects=0, object_volumes=(), object_extents=())
    volumes = voxels[own] * float(np.prod(spacing))
    extents = ((boxes[own, ids.ndim :] - boxes[own, : ids.ndim]) * np.array(spacing)).max(axis=1)
    return ClassObjects(
        name=name,
        voxels=int(voxels[own].sum()),
        volume=float(volumes.sum()),
        objects=int(own.sum()),
        object_volumes=tuple(float(v) for v in np.quantile(volumes, QUARTILES)),
        object_extents=tuple(float(v) for v in np.quantile(extents, QUARTILES)),
        centre=compute_centre(np.append(False, own)[np.maximum(ids, 0)]),
    )


def draw_ids(ids: np.ndarray, most: int, count: int, generator: np.random.Generator) -> dict[int, np.ndarray]:
    """Up to `count` voxel positions (n, dimension) of each of up to `most` objects of a map, drawn evenly: id → positions, ascending."""
    places = np.flatnonzero(ids > 0)
    numbers = ids.ravel()[places]
    found, counts = np.unique(numbers, return_counts=True)
    own = np.split(places[np.argsort(numbers, kind="stable")], np.cumsum(counts)[:-1])
    chosen = range(len(found)) if len(found) <= most else sorted(generator.choice(len(found), most, replace=False))
    return {int(found[index]): draw_places(own[index], ids.shape, count, generator) for index in chosen}


def count_ids(ids: np.ndarray, most: int) -> tuple[int, ...]:
    """The voxels of each of the ids 1 … `most` in a map of ids.

    >>> count_ids(np.array([0, 3, 1, 1, -1]), 3)
    (2, 0, 1)
    """
    return tuple(np.bincount(ids[ids > 0].ravel(), minlength=most + 1)[1 : most + 1].tolist())
