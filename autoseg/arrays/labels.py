"""Label maps: values to class numbers and back, and the objects in them."""

from collections.abc import Iterable

import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, crop
from autoseg.records.dataset import ClassLabel, Part, list_parts
from autoseg.records.fingerprint import ClassObjects

INTEGER_TOLERANCE = 1e-3
QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def round_labels(values: np.ndarray) -> np.ndarray:
    """Label values as int32; float files are accepted within 1e-3 of integers. Raises ValueError with the first value that is not."""
    if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
        return values.astype(np.int32)
    if not np.isfinite(values).all():
        raise ValueError("the label holds NaN or infinite values")
    rounded = np.rint(values)
    wrong = np.abs(values - rounded) > INTEGER_TOLERANCE
    if wrong.any():
        raise ValueError(f"the label holds values that are not integers, such as {float(values[wrong][0]):.4g}")
    return rounded.astype(np.int32)


def encode_labels(values: np.ndarray, classes: tuple[ClassLabel, ...], background: int, ignore: int | None) -> np.ndarray:
    """File values → label numbers: 0 background, 1 … N for the parts of the classes (list_parts), -1 to be ignored. int16.

    Raises ValueError that names values which belong to no class.
    """
    table = {background: 0, **_number_values(classes)}
    if ignore is not None:
        table[ignore] = -1
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if high - low < values.size:  # then counting takes a tenth of sorting
        places = values - low
        present = np.flatnonzero(np.bincount(places.ravel())) + low
        columns = present - low
    else:
        present, places = np.unique(values, return_inverse=True)
        columns = np.arange(present.size)
    unknown = [int(value) for value in present if int(value) not in table]
    if unknown:
        raise ValueError(f"values {unknown[:8]} belong to no class (known: {sorted(table)})")
    numbers = np.zeros(int(columns.max(initial=-1)) + 1, dtype=np.int16)
    numbers[columns] = [table[int(value)] for value in present]
    return numbers[places].reshape(values.shape)


def decode_labels(numbers: np.ndarray, classes: tuple[ClassLabel, ...] | tuple[Part, ...], background: int) -> np.ndarray:
    """Class numbers (of regions the last painted), or label numbers with the parts, → file values.

    In the smallest unsigned type that holds them, or in int32.
    """
    table = np.array([background, *(label.values[0] for label in classes)])
    if table.min() < 0:
        return table.astype(np.int32)[numbers]
    kind = np.uint8 if table.max() < 256 else np.uint16 if table.max() < 65536 else np.uint32
    return table.astype(kind)[numbers]


def make_membership(classes: tuple[ClassLabel, ...]) -> np.ndarray:
    """Which label numbers belong to which class: bool (class, number 0 … N), the background to none.

    >>> whole, core = ClassLabel(name="whole", values=(1, 2)), ClassLabel(name="core", values=(2,))
    >>> make_membership((whole, core)).astype(int).tolist()
    [[0, 1, 1], [0, 0, 1]]
    """
    parts = list_parts(classes)
    table = np.zeros((len(classes), len(parts) + 1), dtype=bool)
    for number, part in enumerate(parts, 1):
        table[list(part.classes), number] = True
    return table


def list_painted(classes: tuple[ClassLabel, ...]) -> np.ndarray:
    """Class number 0 … N → the label number that its first value has: from decided classes to what references hold. int16.

    >>> whole, core = ClassLabel(name="whole", values=(2, 1)), ClassLabel(name="core", values=(1,))
    >>> list_painted((core, whole)).tolist()
    [0, 1, 2]
    """
    numbers = _number_values(classes)
    return np.array([0, *(numbers[label.values[0]] for label in classes)], dtype=np.int16)


def _number_values(classes: tuple[ClassLabel, ...]) -> dict[int, int]:
    return {value: number for number, part in enumerate(list_parts(classes), 1) for value in part.values}


def find_values(label: np.ndarray) -> list[int]:
    """The values of an integer label map other than 0, in ascending order.

    >>> find_values(np.array([[0, 5], [2, 5]]))
    [2, 5]
    """
    small = label.size > 0 and label.min() >= 0 and label.max() < label.size  # then counting takes a tenth of sorting
    found = np.flatnonzero(np.bincount(label.ravel())) if small else np.unique(label)
    return [int(value) for value in found if value != 0]


def measure_objects(label: np.ndarray, name: str, values: tuple[int, ...], spacing: tuple[float, ...]) -> ClassObjects:
    """Volume, objects and centre of a class of these `values` in a label map (z, y, x) or (y, x); spacing in mm, array order."""
    whole = select_values(label, values)
    voxels = int(whole.sum())
    voxel = float(np.prod(spacing))
    if voxels == 0:
        return ClassObjects(name=name, voxels=0, volume=0.0, objects=0, object_volumes=(), object_extents=())
    from scipy import ndimage  # .3 s, which only the processes that measure need to spend

    mask = crop(whole, compute_bounding_box(whole))  # the rest of a scan holds nothing to count
    components, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    volumes = np.bincount(components.ravel())[1:] * voxel
    extents = [max((part.stop - part.start) * step for part, step in zip(slices, spacing)) for slices in ndimage.find_objects(components)]
    return ClassObjects(
        name=name,
        voxels=voxels,
        volume=voxels * voxel,
        objects=int(count),
        object_volumes=tuple(float(v) for v in np.quantile(volumes, QUARTILES)),
        object_extents=tuple(float(v) for v in np.quantile(extents, QUARTILES)),
        centre=compute_centre(whole),
    )


def compute_centre(mask: np.ndarray) -> tuple[float, ...]:
    """Mean position of the voxels of a mask that is not empty, as a share of its edges: 0 is the outer face of the first voxel of an axis.

    >>> compute_centre(np.array([[True, True, False, False]]))
    (0.5, 0.25)
    """
    centre = []
    for axis, size in enumerate(mask.shape):
        counts = np.count_nonzero(mask, axis=tuple(other for other in range(mask.ndim) if other != axis))
        centre.append(float(counts @ (np.arange(size) + 0.5)) / (int(counts.sum()) * size))
    return tuple(centre)


def select_values(label: np.ndarray, values: Iterable[int]) -> np.ndarray:
    """Where a label map holds one of a few values: bool, of the same shape.

    >>> select_values(np.array([0, 5, 2]), (2, 5)).tolist()
    [False, True, True]
    """
    return np.logical_or.reduce([label == value for value in values])


def draw_foreground(label: np.ndarray, membership: np.ndarray, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Per class of `membership` (class, label number) up to `count` voxel positions: int arrays (n, dimension)."""
    return [draw_positions(select_values(label, np.flatnonzero(own)), count, generator) for own in membership]


def draw_objects(mask: np.ndarray, most: int, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Up to `count` voxel positions of each of up to `most` objects of a mask, drawn evenly: int arrays (n, dimension).

    Objects are connected by faces, edges and corners.
    """
    from scipy import ndimage  # .3 s, which only the processes that measure need to spend

    box = compute_bounding_box(mask)
    components, found = ndimage.label(crop(mask, box), structure=np.ones((3,) * mask.ndim))
    places = np.flatnonzero(components)
    numbers = components.ravel()[places]
    objects = np.split(places[np.argsort(numbers, kind="stable")], np.cumsum(np.bincount(numbers)[1:-1])) if found else []
    chosen = range(found) if found <= most else sorted(generator.choice(found, most, replace=False))
    low = np.array([start for start, _ in box])
    return [draw_places(objects[index], components.shape, count, generator) + low for index in chosen]


def draw_positions(mask: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Up to `count` voxels of a mask, drawn evenly without replacement, in their order: int (n, dimension)."""
    return draw_places(np.flatnonzero(mask), mask.shape, count, generator)


def draw_places(places: np.ndarray, shape: tuple[int, ...], count: int, generator: np.random.Generator) -> np.ndarray:
    """Up to `count` of the flat indices `places` into an array of `shape`, as positions (n, dimension)."""
    chosen = places if places.size <= count else generator.choice(places, count, replace=False)
    return np.stack(np.unravel_index(np.sort(chosen), shape), axis=1).reshape(-1, len(shape))


def pack_voxels(voxels: np.ndarray) -> bytes:
    """Voxel positions (n, dimension) as the bytes that a PreparedCase keeps: int32, little-endian.

    >>> unpack_voxels(pack_voxels(np.array([[1, 2], [3, 4]])), 2).tolist()
    [[1, 2], [3, 4]]
    """
    return voxels.astype("<i4").tobytes()


def unpack_voxels(packed: bytes, dimension: int) -> np.ndarray:
    """Inverse of pack_voxels, (n, dimension)."""
    return np.frombuffer(packed, dtype="<i4").reshape(-1, dimension)
