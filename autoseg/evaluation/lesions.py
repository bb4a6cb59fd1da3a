"""Which lesions were found: the connected objects of every class in reference and prediction, counted and by size.

A reference lesion counts as found where at least one of its voxels is predicted as its class, and a predicted one as false where none of
its voxels is of that class in the reference: the convention of the MICCAI challenges on MS and stroke lesions (Commowick 2018, ISLES 2022,
Hernandez Petzsche 2022). It is kind to one large prediction over many lesions; the Dice beside it is not. Neighbours by faces, edges and
corners belong together (26 in 3D, 8 in 2D).
"""

from dataclasses import dataclass

import msgspec
import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, crop
from autoseg.evaluation.overlap import CUBIC_MM_PER_ML, blank_ignored
from autoseg.evaluation.surface import pack_layers
from autoseg.records.scores import CaseScore, SizeRecall

DECADES_ML = (0.1, 1.0, 10.0)
DECADES_MM2 = (10.0, 100.0, 1000.0)
DECADES_VOXELS = (100.0, 1000.0, 10000.0)


@dataclass(frozen=True)
class Lesions:
    """Of one class: voxels of each reference lesion, int64 (n,), which of them are found, bool (n,), and the predicted and false ones."""

    voxels: np.ndarray
    found: np.ndarray
    predicted: int
    false: int


def find_lesions(prediction: np.ndarray, reference: np.ndarray, membership: np.ndarray) -> list[Lesions]:
    """The lesions of every class of `membership` (class, label number) in two maps of label numbers of one shape, 2D or 3D.

    Voxels below 0 are background, also in the prediction where the reference is to be ignored.

    >>> found = find_lesions(np.array([[1, 1, 0, 0, 0, 1]]), np.array([[0, 1, 0, 1, 0, 0]]), np.array([[False, True]]))
    >>> [(lesions.voxels.tolist(), lesions.found.tolist(), lesions.predicted, lesions.false) for lesions in found]
    [([1, 1], [True, False], 2, 1)]
    """
    sides = blank_ignored(prediction, reference)
    box = compute_bounding_box((sides[0] | sides[1]) > 0)
    lesions: dict[int, Lesions] = {}
    for layer in pack_layers(membership):
        lesions |= _count_layer(*(layer[crop(side, box)] for side in sides))
    none = Lesions(np.zeros(0, np.int64), np.zeros(0, bool), 0, 0)
    return [lesions.get(number, none) for number in range(1, len(membership) + 1)]


def _count_layer(prediction: np.ndarray, reference: np.ndarray) -> dict[int, Lesions]:
    """By number the classes that are in either map of class numbers (0: none)."""
    both = (prediction == reference) & (reference > 0)
    owners, sizes, found = _count_objects(reference, both)
    predicted, _, right = _count_objects(prediction, both)
    return {
        number: Lesions(sizes[owners == number], found[owners == number], int(own.sum()), int((own & ~right).sum()))
        for number in np.union1d(owners, predicted).tolist()
        for own in [predicted == number]
    }


def _count_objects(classes: np.ndarray, both: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per connected object of one class number its class, its voxels, and whether any of them is in `both`: (n,) each."""
    import cc3d

    objects, count = cc3d.connected_components(classes, connectivity=8 if classes.ndim == 2 else 26, return_N=True)
    places = np.flatnonzero(objects)
    own = objects.ravel()[places]
    owners = np.zeros(count + 1, np.int64)
    owners[own] = classes.ravel()[places]
    hits = np.bincount(own[both.ravel()[places]], minlength=count + 1)
    return owners[1:], np.bincount(own, minlength=count + 1)[1:], hits[1:] > 0


def choose_decades(dimension: int, voxel_mm: float | None) -> tuple[tuple[float, ...], float]:
    """The limits between sizes, and how much one voxel is of their unit: ml, mm² in 2D, or voxels where `voxel_mm` (mm³, mm²) is None."""
    if voxel_mm is None:
        return DECADES_VOXELS, 1.0
    return (DECADES_MM2, voxel_mm) if dimension == 2 else (DECADES_ML, voxel_mm / CUBIC_MM_PER_ML)


def compute_recall(lesions: Lesions, decades: tuple[float, ...], voxel: float) -> tuple[SizeRecall, ...]:
    """Found and all reference lesions by size, sizes without any left out."""
    places = np.searchsorted(decades, lesions.voxels * voxel, side="right")
    counts, found = np.bincount(places, minlength=len(decades) + 1), np.bincount(places[lesions.found], minlength=len(decades) + 1)
    edges = (0.0, *decades, None)
    return tuple(
        SizeRecall(low_ml=edges[place] or 0.0, high_ml=edges[place + 1], lesions=int(counts[place]), found=int(found[place]))
        for place in np.flatnonzero(counts).tolist()
    )


def add_lesions(rows: list[CaseScore], lesions: list[Lesions], decades: tuple[float, ...], voxel: float) -> list[CaseScore]:
    """The rows of a case, one per class, with their lesions; `decades` and `voxel` as choose_decades has them."""
    return [
        msgspec.structs.replace(
            row,
            lesions_reference=own.voxels.size,
            lesions_found=int(own.found.sum()),
            lesions_predicted=own.predicted,
            lesions_false=own.false,
            lesion_recall=compute_recall(own, decades, voxel),
        )
        for row, own in zip(rows, lesions, strict=True)
    ]


def sum_recall(rows: list[CaseScore]) -> tuple[SizeRecall, ...]:
    """Recall by size over several cases of a class.

    >>> part = SizeRecall(low_ml=0.0, high_ml=0.1, lesions=2, found=1)
    >>> row = CaseScore(case="", class_name="", dice=None, iou=None, precision=None, sensitivity=None, specificity=None,
    ...                 volume_reference_ml=None, volume_predicted_ml=None, voxels_reference=0, voxels_predicted=0, lesion_recall=(part,))
    >>> [(total.lesions, total.found) for total in sum_recall([row, row])]
    [(4, 2)]
    """
    totals: dict[float, SizeRecall] = {}
    for part in (part for row in rows for part in row.lesion_recall):
        before = totals.get(part.low_ml, msgspec.structs.replace(part, lesions=0, found=0))
        totals[part.low_ml] = msgspec.structs.replace(before, lesions=before.lesions + part.lesions, found=before.found + part.found)
    return tuple(totals[low] for low in sorted(totals))
