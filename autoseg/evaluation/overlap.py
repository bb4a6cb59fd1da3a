"""Overlap of a predicted and a reference label map, all classes or regions from one joint histogram."""

import math

import numpy as np

from autoseg.arrays.labels import make_membership
from autoseg.records.dataset import ClassLabel
from autoseg.records.scores import CaseScore

CUBIC_MM_PER_ML = 1000.0
CHUNK = 2**18  # voxels that are counted at once, so that what is made of them stays in the cache


def count_joint(prediction: np.ndarray, reference: np.ndarray, labels: int) -> np.ndarray:
    """Voxels by (reference, predicted) label number, both 0 … `labels`, int64 (n + 1, n + 1).

    Reference voxels of -1 are left out; a prediction that says -1 says nothing, as the background does.

    >>> count_joint(np.array([0, 1, 1, -1]), np.array([0, 1, 0, 1]), 1).tolist()
    [[1, 1], [1, 1]]
    """
    base = labels + 1
    kind = np.min_scalar_type((labels + 2) * base)
    joint = np.zeros((labels + 2) * base, np.int64)
    true, found = reference.reshape(-1), prediction.reshape(-1)
    for start in range(0, true.size, CHUNK):
        rows = true[start : start + CHUNK].astype(kind) + kind.type(1)  # -1 becomes row 0: what is to be ignored
        columns = np.maximum(found[start : start + CHUNK], 0).astype(kind)
        joint += np.bincount(rows * kind.type(base) + columns, minlength=joint.size)
    return joint.reshape(labels + 2, base)[1:]


def blank_ignored(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both maps of label numbers with background where the reference is to be ignored (below 0), or the prediction says nothing."""
    if reference.min(initial=0) < 0:
        prediction, reference = np.where(reference < 0, 0, prediction), np.maximum(reference, 0)
    return (np.maximum(prediction, 0) if prediction.min(initial=0) < 0 else prediction), reference


def _divide(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def score_case(case: str, joint: np.ndarray, classes: tuple[ClassLabel, ...], voxel_mm3: float | None) -> list[CaseScore]:
    """The metrics of one case from its joint histogram of label numbers; `voxel_mm3` is None where voxels have no physical volume.

    With TP, FP, FN, TN of a class: Dice 2TP / (2TP + FP + FN) (Dice 1945), IoU TP / (TP + FP + FN) (Jaccard 1912),
    precision TP / (TP + FP), sensitivity TP / (TP + FN), specificity TN / (TN + FP), accuracy (TP + TN) / all, and
    MCC (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)) (Matthews 1975). A metric whose denominator is 0 is None: a class
    absent from both has no Dice and no MCC. A class that is predicted where the reference has none has Dice 0. The volume difference is
    predicted minus reference. A region counts all label numbers that belong to it.
    """
    total = int(joint.sum())
    scores = []
    for label, own in zip(classes, make_membership(classes)):
        hits = int(joint[own][:, own].sum())
        reference, predicted = int(joint[own].sum()), int(joint[:, own].sum())
        outside = total - reference  # true negatives and false positives
        wrong, missed = predicted - hits, reference - hits
        right = outside - wrong
        scores.append(
            CaseScore(
                case=case,
                class_name=label.name,
                dice=_divide(2 * hits, reference + predicted),
                iou=_divide(hits, reference + predicted - hits),
                precision=_divide(hits, predicted),
                sensitivity=_divide(hits, reference),
                specificity=_divide(right, outside),
                accuracy=_divide(hits + right, total),
                mcc=_divide(hits * right - wrong * missed, math.sqrt(predicted * reference * outside * (total - predicted))),
                volume_reference_ml=None if voxel_mm3 is None else reference * voxel_mm3 / CUBIC_MM_PER_ML,
                volume_predicted_ml=None if voxel_mm3 is None else predicted * voxel_mm3 / CUBIC_MM_PER_ML,
                volume_difference_ml=None if voxel_mm3 is None else (predicted - reference) * voxel_mm3 / CUBIC_MM_PER_ML,
                voxels_reference=reference,
                voxels_predicted=predicted,
            )
        )
    return scores
