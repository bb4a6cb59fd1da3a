"""The objects of a whole data set at the spacing that is planned for: their sizes, how close they lie, how many a tile holds."""

from dataclasses import dataclass

import numpy as np

from autoseg.arrays.labels import unpack_voxels
from autoseg.errors import InputError
from autoseg.records.fingerprint import CaseFingerprint, Fingerprint, MeasuredObjects

PERCENTILES = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.5)
FINE = 2.0  # ratio to the finest spacing from which an axis is coarse
TILE_STEPS = 4  # places per tile edge at which a tile is tried


@dataclass(frozen=True)
class Objects:
    """All objects of a data set, a row each, axes in the plan's order.

    `boxes` (n, 2 · dimension): lowest and highest edges in voxels at `spacing` (mm); `voxels` (n,) at that spacing; `fill` (n,) the share
    of its box that an object has; `cases` (n,) the number of its case, of `count` in all. `touching` is the share with a neighbour,
    `overlapping` that of all objects' voxels that belonged to more than one, and `lost_to_nms` the share of objects that NMS of true boxes
    would delete at each of NMS_LEVELS.
    """

    boxes: np.ndarray
    voxels: np.ndarray
    fill: np.ndarray
    cases: np.ndarray
    count: int
    spacing: tuple[float, ...]
    touching: float
    overlapping: float
    lost_to_nms: tuple[float, ...]

    @property
    def sizes(self) -> np.ndarray:
        """Edges of the boxes (n, dimension) in voxels."""
        dimension = len(self.spacing)
        return self.boxes[:, dimension:] - self.boxes[:, :dimension]

    @property
    def sides(self) -> np.ndarray:
        """Geometric mean of the edges (n,) in voxels."""
        return np.exp(np.log(self.sizes).mean(axis=1))

    @property
    def fine_sides(self) -> np.ndarray:
        """Geometric mean (n,) of the edges along axes that are not coarse, in voxels."""
        fine = [step < FINE * min(self.spacing) for step in self.spacing]
        return np.exp(np.log(self.sizes[:, fine]).mean(axis=1))

    @property
    def per_case(self) -> np.ndarray:
        """Objects of every case (count,)."""
        return np.bincount(self.cases, minlength=self.count)


@dataclass(frozen=True)
class Counts:
    """Of objects, over cases: the median, high percentiles, and the most."""

    median: float
    p95: float
    p99: float
    largest: int


def pool_objects(fingerprint: Fingerprint, axes: tuple[int, ...], spacing: tuple[float, ...]) -> Objects:
    """The objects of all cases at a spacing (mm, after the transposition `axes` of canonical order).

    Raises InputError where there is no object to plan for.
    """
    measured = [_take_objects(case) for case in fingerprint.cases]
    tables = [_read_case(case, objects, axes, spacing) for case, objects in zip(fingerprint.cases, measured)]
    counts = [len(voxels) for _, voxels, _ in tables]
    total = sum(counts)
    if not total:
        raise InputError("No label holds an object, so there is nothing to plan an instance task for.", todo="Plan with --task semantic.")
    boxes, voxels, fill = (np.concatenate(column) for column in zip(*tables))
    own_voxels = sum(int(_unpack(part.voxels).sum()) for part in measured)
    return Objects(
        boxes=boxes,
        voxels=voxels,
        fill=fill,
        cases=np.repeat(np.arange(len(counts)), counts),
        count=len(counts),
        spacing=spacing,
        touching=sum(part.touching for part in measured) / total,
        overlapping=sum(part.overlapping for part in measured) / max(1, own_voxels),
        lost_to_nms=tuple(sum(losses) / total for losses in zip(*(part.lost_to_nms for part in measured))),
    )


def _take_objects(case: CaseFingerprint) -> MeasuredObjects:
    if case.objects is None:
        raise InputError(f"The objects of case {case.case} were not measured.", todo="Plan the scans anew with --task instance.")
    return case.objects


def _unpack(packed: bytes) -> np.ndarray:
    return unpack_voxels(packed, 1)[:, 0].astype(np.int64)


def _read_case(
    case: CaseFingerprint, objects: MeasuredObjects, axes: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 2 · dimension) and voxels (n,) of one case's objects at `spacing`, and the share of their boxes that they fill (n,)."""
    scale = np.array([case.spacing[axis] / step for axis, step in zip(axes, spacing)])
    boxes = unpack_voxels(objects.boxes, 2 * len(axes)).astype(np.float64)
    low, high = boxes[:, list(axes)], boxes[:, [len(axes) + axis for axis in axes]]
    voxels = _unpack(objects.voxels)
    fill = voxels / np.prod(high - low, axis=1)
    return np.concatenate([low * scale, high * scale], axis=1), voxels * np.prod(scale), fill


def compute_percentiles(values: np.ndarray) -> dict[float, np.ndarray]:
    """Of values (n,) or, axis by axis, (n, dimension), at PERCENTILES.

    >>> float(compute_percentiles(np.arange(101))[99.0])
    99.0
    """
    return dict(zip(PERCENTILES, np.percentile(values, PERCENTILES, axis=0)))


def count_per_tile(objects: Objects, tile: tuple[int, ...]) -> Counts:
    """How many objects' centres lie in a tile (voxels), for the densest place of every case."""
    dimension = len(tile)
    step = np.array(tile) / TILE_STEPS
    centres = (objects.boxes[:, :dimension] + objects.boxes[:, dimension:]) / 2
    cells = np.floor(centres / step).astype(np.int64)
    by_case = np.split(cells, np.cumsum(objects.per_case)[:-1])
    return summarise_counts(np.array([_count_densest(own) for own in by_case]))


def _count_densest(cells: np.ndarray) -> int:
    """The most entries of `cells` (n, dimension), a grid of a tile's quarters, that one tile holds."""
    if not len(cells):
        return 0
    cells = cells - cells.min(axis=0)
    counts = np.zeros(cells.max(axis=0) + 1, dtype=np.int64)
    np.add.at(counts, tuple(cells.T), 1)
    for axis in range(counts.ndim):
        counts = np.lib.stride_tricks.sliding_window_view(counts, min(TILE_STEPS, counts.shape[axis]), axis=axis).sum(axis=-1)
    return int(counts.max())


def summarise_counts(counts: np.ndarray) -> Counts:
    """Of one number per case (n,).

    >>> summarise_counts(np.array([1, 2, 9]))
    Counts(median=2.0, p95=8.3, p99=8.86, largest=9)
    """
    median, p95, p99 = (round(float(value), 2) for value in np.percentile(counts, (50, 95, 99)))
    return Counts(median, p95, p99, int(counts.max()))
