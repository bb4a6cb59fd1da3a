"""Distances between the surfaces of predicted and reference classes: Hausdorff, HD95, ASSD and NSD, all classes in one pass.

Voxel-centre definitions, as MONAI's and medpy's: the surface of a class are its voxels of which a face neighbour is not of it (beyond the
image there is background; an axis of one voxel is no axis, or every voxel of a slice would be surface), and a distance is that of two
centres. Mesh-based ones (DeepMind's surface-distance, MeshMetrics) weigh surface elements by their area and are nearer to the continuous
truth on coarse or very anisotropic grids, where the two differ by up to the longest edge of a voxel (Podobnik and Vrtovec 2024,
arXiv 2410.02630). Ours keep values comparable with most published tables, need no choice of a mesh, and are exact for what was painted.

Hausdorff is the largest distance of any surface voxel to the other surface (Huttenlocher 1993), HD95 the larger of both directions' 95th
percentiles, linearly interpolated (Metrics Reloaded, Maier-Hein 2024, and MONAI; medpy takes the percentile of both directions' distances
in one list, which is never larger and hides what the smaller surface misses). ASSD is the mean of both directions' distances in one list,
NSD their share within a tolerance (Nikolov 2021, arXiv 1809.04430, by counts of voxels; MONAI's compute_surface_dice).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, crop
from autoseg.evaluation.overlap import blank_ignored
from autoseg.records.scores import CaseScore

NEAR = {1: 64.0, 2: 8.0, 3: 4.0}  # by dimension: how far neighbours are looked up, in mean voxel edges: some 200 neighbours
TREE_COST = 200  # what one search in a tree costs, in voxels of a distance transform
ROUNDING = 1e-6  # of the tolerance: spacings in files are 32-bit floats, and a voxel of 1 mm should lie within 1 mm
PERCENTILE = 95

Shell = tuple[float, np.ndarray]  # a distance, and the neighbours at it: int64 (n, dimension), in voxels


@dataclass(frozen=True)
class SurfaceDistances:
    """Of one class: None where there is no distance, as the class is absent from one side or both; NSD is 0 where it is from one only."""

    hausdorff: float | None
    hd95: float | None
    assd: float | None
    nsd: float | None


@dataclass(frozen=True)
class Surface:
    """The surface voxels of classes that share none: `marks` holds the class number there and 0 elsewhere, in a border of zeros.

    `places` are their flat indices in `marks`, ascending, and `numbers` their classes.
    """

    marks: np.ndarray
    places: np.ndarray
    numbers: np.ndarray

    def locate(self, chosen: np.ndarray) -> np.ndarray:
        """Positions in `marks` of some of the surface voxels, int64 (n, dimension)."""
        return np.stack(np.unravel_index(self.places[chosen], self.marks.shape), axis=1)


def measure_surfaces(
    prediction: np.ndarray, reference: np.ndarray, membership: np.ndarray, spacing: Sequence[float], tolerance: float
) -> list[SurfaceDistances]:
    """The distances of every class of `membership` (class, label number) between two maps of label numbers of one shape, 2D or 3D.

    `spacing` per axis and `tolerance` in the same unit. Voxels of either map below 0, and where the reference says so, are background.

    >>> line, spacing = np.array([[0, 1, 1, 0, 0, 0]]), (1.0, 0.5)
    >>> measure_surfaces(np.roll(line, 1), line, np.array([[False, True]]), spacing, 0.4)
    [SurfaceDistances(hausdorff=0.5, hd95=0.475, assd=0.25, nsd=0.5)]
    """
    axes = [axis for axis, size in enumerate(reference.shape) if size > 1] or [0]
    shape = tuple(reference.shape[axis] for axis in axes)
    sides = [side.reshape(shape) for side in blank_ignored(prediction, reference)]
    box = compute_bounding_box((sides[0] | sides[1]) > 0)
    sides = [crop(side, box) for side in sides]
    steps = tuple(float(spacing[axis]) for axis in axes)
    found: dict[int, SurfaceDistances] = {}
    for layer in pack_layers(membership):
        found |= _measure_layer([_look_up(layer, side) for side in sides], steps, tolerance)
    absent = SurfaceDistances(None, None, None, None)
    return [found.get(number, absent) for number in range(1, len(membership) + 1)]


def pack_layers(membership: np.ndarray) -> list[np.ndarray]:
    """Tables label number → class number (0: none) such that every class is whole in one: one table, or several for nested regions.

    >>> [layer.tolist() for layer in pack_layers(np.array([[False, True, True], [False, False, True]]))]
    [[0, 1, 1], [0, 0, 2]]
    """
    layers: list[np.ndarray] = []
    for number, own in enumerate(membership, 1):
        layer = next((layer for layer in layers if not layer[own].any()), None)
        if layer is None:
            layer = np.zeros(own.size, np.uint8 if len(membership) < 256 else np.uint16)
            layers.append(layer)
        layer[own] = number
    return layers


def _look_up(layer: np.ndarray, side: np.ndarray) -> np.ndarray:
    if np.array_equal(layer, np.arange(layer.size)):  # plain classes: their numbers are those of the labels, and a cast is all it takes
        return side.astype(layer.dtype)
    return layer[side]


def _measure_layer(sides: list[np.ndarray], spacing: tuple[float, ...], tolerance: float) -> dict[int, SurfaceDistances]:
    """By number the classes that are in either map, prediction and reference; one thread per direction."""
    shells = list_shells(spacing)
    margins = np.max([np.abs(offsets).max(axis=0) for _, offsets in shells], axis=0)
    with ThreadPoolExecutor(2) as pool:
        there, back = pool.map(lambda side: find_surface(side, margins), sides)
        pairs = ((there, back), (back, there))
        first, second = pool.map(lambda pair: compute_distances(pair[0], pair[1], shells, spacing), pairs)
    numbers = np.union1d(there.numbers, back.numbers).tolist()
    return {n: _summarise(first[there.numbers == n], second[back.numbers == n], tolerance) for n in numbers}


def _summarise(first: np.ndarray, second: np.ndarray, tolerance: float) -> SurfaceDistances:
    """The measures of a class from the distances of both directions, (n,) and (m,), of which at least one is not empty."""
    if not (first.size and second.size):
        return SurfaceDistances(None, None, None, 0.0)
    total, limit = first.size + second.size, tolerance * (1 + ROUNDING)
    return SurfaceDistances(
        hausdorff=float(max(first.max(), second.max())),
        hd95=float(max(np.percentile(first, PERCENTILE), np.percentile(second, PERCENTILE))),
        assd=float((first.sum() + second.sum()) / total),
        nsd=float((np.count_nonzero(first <= limit) + np.count_nonzero(second <= limit)) / total),
    )


def list_shells(spacing: tuple[float, ...]) -> list[Shell]:
    """All neighbours of a voxel within NEAR mean edges, itself first, by distance: those at one distance together.

    >>> [(round(distance, 2), len(offsets)) for distance, offsets in list_shells((2.0, 1.0, 1.0))[:4]]
    [(0.0, 1), (1.0, 4), (1.41, 4), (2.0, 6)]
    """
    radius = NEAR[len(spacing)] * float(np.prod(spacing)) ** (1 / len(spacing))
    reach = [int(radius / step) for step in spacing]
    offsets = np.stack(np.meshgrid(*(np.arange(-most, most + 1) for most in reach), indexing="ij"), axis=-1).reshape(-1, len(spacing))
    squares = np.sort((offsets * np.array(spacing)) ** 2, axis=1).sum(axis=1)  # sorted, so that equal ones are equal to the last bit
    distances, places = np.unique(squares, return_inverse=True)
    near = np.count_nonzero(distances <= radius**2)
    return [(float(np.sqrt(distances[place])), offsets[places == place]) for place in range(near)]


def find_surface(classes: np.ndarray, margins: np.ndarray) -> Surface:
    """Surface voxels of a map of class numbers (0: none), whose marks get `margins` (at least 1) zeros around on each axis."""
    marks = np.pad(classes, [(max(1, int(margin)),) * 2 for margin in margins])
    flat = marks.ravel()
    edge, differs = np.zeros((2, flat.size), bool)  # used again and again: memory that is fresh costs more than the comparison
    for stride in (step // marks.itemsize for step in marks.strides):
        changes = np.not_equal(flat[stride:], flat[:-stride], out=differs[stride:])
        edge[stride:] |= changes
        edge[:-stride] |= changes
    np.multiply(flat, edge.view(np.uint8), out=flat)
    places = np.flatnonzero(flat)
    return Surface(marks, places, flat[places])


def compute_distances(own: Surface, other: Surface, shells: list[Shell], spacing: tuple[float, ...]) -> np.ndarray:
    """From each surface voxel of `own` to the nearest of its class in `other`, float64 (n,); infinite where there is none.

    Two good masks are close to each other, so the neighbours are looked up by distance, for all classes at once; the few voxels that are
    farther away are searched for class by class.
    """
    distances = np.full(own.places.size, np.inf)
    present = np.bincount(other.numbers, minlength=int(own.numbers.max(initial=0)) + 1) > 0
    waiting = np.flatnonzero(present[own.numbers])
    places, numbers, marks = own.places[waiting], own.numbers[waiting], other.marks.ravel()
    strides = np.array(other.marks.strides) // other.marks.itemsize
    for distance, offsets in shells:
        found = np.zeros(waiting.size, bool)
        for step in (offsets @ strides).tolist():
            found |= marks[places + step] == numbers
        distances[waiting[found]] = distance
        left = ~found
        waiting, places, numbers = waiting[left], places[left], numbers[left]
        if not waiting.size:
            return distances
    for number in np.unique(numbers):
        far = waiting[numbers == number]
        distances[far] = search_far(own.locate(far), other.locate(np.flatnonzero(other.numbers == number)), spacing)
    return distances


def search_far(points: np.ndarray, targets: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """From each point to the nearest target, (n,): positions in voxels, (n, dimension) and (m, dimension), distances in mm.

    Few points are searched for in a tree, many are read off a distance transform of the box that holds all (Felzenszwalb 2012).
    """
    low = np.minimum(points.min(axis=0), targets.min(axis=0))
    shape = np.maximum(points.max(axis=0), targets.max(axis=0)) - low + 1
    if points.shape[0] * TREE_COST < np.prod(shape):
        from scipy.spatial import cKDTree  # .2 s, which only scoring needs to spend

        return cKDTree(targets * np.array(spacing)).query(points * np.array(spacing))[0]
    import edt

    outside = np.ones(shape, np.uint8)
    outside[tuple((targets - low).T)] = 0
    return edt.edt(outside, anisotropy=spacing if len(spacing) > 1 else spacing[0], parallel=1)[tuple((points - low).T)]


def add_surfaces(rows: list[CaseScore], measured: list[SurfaceDistances]) -> list[CaseScore]:
    """The rows of a case, one per class, with their distances."""
    return [
        msgspec.structs.replace(row, hausdorff_mm=own.hausdorff, hd95_mm=own.hd95, assd_mm=own.assd, nsd=own.nsd)
        for row, own in zip(rows, measured, strict=True)
    ]
