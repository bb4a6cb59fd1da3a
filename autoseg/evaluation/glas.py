"""The three measures of the GlaS challenge (Sirinukunwattana 2017, arXiv 1603.00275, section 4): object F1, Dice and Hausdorff distance."""

from dataclasses import dataclass, fields

import msgspec
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from autoseg.evaluation.instances import Overlaps
from autoseg.records.scores import InstanceScore


@dataclass(frozen=True)
class GlasTally:
    """What is counted of one class, in one case or, summed, in several.

    A prediction that covers at least half of the reference that it overlaps most is a hit; a reference without such a prediction is missed.
    `dice`, `area`, `distance`, `distance_area` float64 (2,), seen from the references and from the predictions: sums over objects of area
    times Dice, of area, of area times Hausdorff distance, and of the areas that have one.
    """

    hits: int
    missed: int
    predictions: int
    dice: np.ndarray
    area: np.ndarray
    distance: np.ndarray
    distance_area: np.ndarray

    def __add__(self, other: "GlasTally") -> "GlasTally":
        return GlasTally(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def tally_glas(overlaps: Overlaps, prediction: np.ndarray, reference: np.ndarray) -> GlasTally:
    """Counts one class; the maps (of ids) give the objects' outlines. Reference voxels to be ignored belong to no object."""
    areas = (overlaps.reference_areas, overlaps.predicted_areas)
    sides = (overlaps.rows, overlaps.columns)
    points = (
        collect_points(reference, overlaps.reference_ids),
        collect_points(np.where(reference < 0, 0, prediction), overlaps.predicted_ids),
    )
    best = [_find_partner(sides[own], overlaps.shared) for own in (0, 1)]
    covering = best[1][2 * overlaps.shared[best[1]] >= areas[0][overlaps.rows[best[1]]]]
    dice = [np.sum(areas[own][sides[own][best[own]]] * _compute_dice(overlaps, best[own])) for own in (0, 1)]
    known = all(own.size for own in areas)
    return GlasTally(
        hits=covering.size,
        missed=int(areas[0].size - np.unique(overlaps.rows[covering]).size),
        predictions=areas[1].size,
        dice=np.array(dice),
        area=np.array([own.sum() for own in areas], dtype=np.float64),
        distance=np.array([_sum_distances(points, sides, best, own) if known else 0.0 for own in (0, 1)]),
        distance_area=np.array([own.sum() if known else 0.0 for own in areas]),
    )


def _find_partner(own: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Of each object that overlaps any, the pair with the most common voxels, the first in the map on ties: indices of pairs."""
    order = np.lexsort((-shared, own))
    return order[np.unique(own[order], return_index=True)[1]]


def _compute_dice(overlaps: Overlaps, pairs: np.ndarray) -> np.ndarray:
    rows, columns = overlaps.rows[pairs], overlaps.columns[pairs]
    return 2 * overlaps.shared[pairs] / (overlaps.reference_areas[rows] + overlaps.predicted_areas[columns])


def collect_points(ids: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """The voxel positions of each wanted object, int64 (area, dimension)."""
    order = np.argsort(wanted)
    numbers = np.zeros(ids.shape, np.int32)  # 1 … n by ascending id
    own = np.isin(ids, wanted)
    numbers[own] = np.searchsorted(wanted[order], ids[own]) + 1
    boxes = ndimage.find_objects(numbers)
    found = {place: np.argwhere(numbers[box] == n) + [part.start for part in box] for n, (place, box) in enumerate(zip(order, boxes), 1)}
    return [found[place] for place in range(wanted.size)]


def compute_hausdorff(first: np.ndarray, second: np.ndarray) -> float:
    """The largest distance from a voxel of either set to the nearest of the other, in voxels; positions (n, dimension), (m, dimension).

    >>> compute_hausdorff(np.array([[0, 0], [0, 1]]), np.array([[0, 0], [3, 4]]))
    4.242640687119285
    """
    trees = cKDTree(first), cKDTree(second)
    return float(max(trees[1].query(first)[0].max(), trees[0].query(second)[0].max()))


def _sum_distances(points: tuple[list[np.ndarray], ...], sides: tuple[np.ndarray, ...], best: list[np.ndarray], own: int) -> float:
    """Over the objects of one side, area times distance to the partner, or to the nearest object where none overlaps."""
    partners = dict(zip(sides[own][best[own]].tolist(), sides[1 - own][best[own]].tolist()))
    total = 0.0
    for number, voxels in enumerate(points[own]):
        others = [points[1 - own][partners[number]]] if number in partners else points[1 - own]
        total += len(voxels) * min(compute_hausdorff(voxels, other) for other in others)
    return total


def add_glas(row: InstanceScore, counts: GlasTally) -> InstanceScore:
    """The row with the three measures. Dice and Hausdorff are the mean of both sides' means, weighted by area.

    With no object on either side all are None; with objects on one side only F1 and Dice are 0 and there is no distance.
    """
    both = 2 * counts.hits + (counts.predictions - counts.hits) + counts.missed
    dice = np.divide(counts.dice, counts.area, out=np.zeros(2), where=counts.area > 0)
    known = counts.distance_area.all()
    return msgspec.structs.replace(
        row,
        object_f1=2 * counts.hits / both if both else None,
        object_dice=float(dice.mean()) if counts.area.any() else None,
        object_hausdorff=float((counts.distance / counts.distance_area).mean()) if known else None,
    )
