"""Label maps: values to class numbers and back, and the objects in them."""

import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, crop
from autoseg.records.dataset import ClassLabel
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
    """File values → class numbers: 0 background, 1 … N in the order of `classes`, -1 to be ignored. int16.

    Raises ValueError that names values which belong to no class.
    """
    table = {background: 0, **{value: number for number, label in enumerate(classes, 1) for value in label.values}}
    if ignore is not None:
        table[ignore] = -1
    present, inverse = np.unique(values, return_inverse=True)
    unknown = [int(value) for value in present if int(value) not in table]
    if unknown:
        raise ValueError(f"values {unknown[:8]} belong to no class (known: {sorted(table)})")
    return np.array([table[int(value)] for value in present], dtype=np.int16)[inverse].reshape(values.shape)


def decode_labels(numbers: np.ndarray, classes: tuple[ClassLabel, ...], background: int) -> np.ndarray:
    """Class numbers → file values, in the smallest unsigned type that holds them (int32 where a value is negative)."""
    table = np.array([background, *(label.values[0] for label in classes)])
    if table.min() < 0:
        return table.astype(np.int32)[numbers]
    kind = np.uint8 if table.max() < 256 else np.uint16 if table.max() < 65536 else np.uint32
    return table.astype(kind)[numbers]


def find_values(label: np.ndarray) -> list[int]:
    """The values of an integer label map other than 0, in ascending order.

    >>> find_values(np.array([[0, 5], [2, 5]]))
    [2, 5]
    """
    small = label.size > 0 and label.min() >= 0 and label.max() < label.size  # then counting takes a tenth of sorting
    found = np.flatnonzero(np.bincount(label.ravel())) if small else np.unique(label)
    return [int(value) for value in found if value != 0]


def measure_objects(label: np.ndarray, name: str, number: int, spacing: tuple[float, ...]) -> ClassObjects:
    """Volume, objects and centre of class `number` in a label map (z, y, x) or (y, x); spacing in mm, array order."""
    whole = label == number
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
        centre=_compute_centre(whole),
    )


def _compute_centre(mask: np.ndarray) -> tuple[float, ...]:
    """Mean position of the voxels of a mask that is not empty, as a share of its edges: 0 is the outer face of the first voxel of an axis.

    >>> _compute_centre(np.array([[True, True, False, False]]))
    (0.5, 0.25)
    """
    centre = []
    for axis, size in enumerate(mask.shape):
        counts = np.count_nonzero(mask, axis=tuple(other for other in range(mask.ndim) if other != axis))
        centre.append(float(counts @ (np.arange(size) + 0.5)) / (int(counts.sum()) * size))
    return tuple(centre)


def draw_foreground(label: np.ndarray, classes: int, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Per class 1 … `classes`, up to `count` voxel positions drawn evenly without replacement: int arrays (n, dimension)."""
    return [_draw_positions(np.flatnonzero(label == number), label.shape, count, generator) for number in range(1, classes + 1)]


def draw_objects(label: np.ndarray, number: int, most: int, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Up to `count` voxel positions of each of up to `most` objects of class `number`, drawn evenly: int arrays (n, dimension).

    Objects are connected by faces, edges and corners.
    """
    from scipy import ndimage  # .3 s, which only the processes that measure need to spend

    box = compute_bounding_box(label == number)
    components, found = ndimage.label(crop(label, box) == number, structure=np.ones((3,) * label.ndim))
    places = np.flatnonzero(components)
    places = places[np.argsort(components.ravel()[places], kind="stable")]
    objects = np.split(places, np.cumsum(np.bincount(components.ravel()[places], minlength=found + 1)[1:-1])) if found else []
    chosen = range(found) if found <= most else sorted(generator.choice(found, most, replace=False))
    low = np.array([start for start, _ in box])
    return [_draw_positions(objects[index], components.shape, count, generator) + low for index in chosen]


def _draw_positions(places: np.ndarray, shape: tuple[int, ...], count: int, generator: np.random.Generator) -> np.ndarray:
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
