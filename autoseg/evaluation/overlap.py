"""Overlap of a predicted and a reference label map, all classes or regions from one joint histogram."""

import numpy as np

from autoseg.arrays.labels import make_membership
from autoseg.records.dataset import ClassLabel
from autoseg.records.scores import CaseScore

CUBIC_MM_PER_ML = 1000.0


def count_joint(prediction: np.ndarray, reference: np.ndarray, labels: int) -> np.ndarray:
    """Voxels by (reference, predicted) label number, both 0 … `labels`, int64 (n + 1, n + 1).

    Reference voxels of -1 are left out; a prediction that says -1 says nothing, as the background does.

    >>> count_joint(np.array([0, 1, 1, -1]), np.array([0, 1, 0, 1]), 1).tolist()
    [[1, 1], [1, 1]]
    """
    counted = reference >= 0
    joint = reference[counted].astype(np.int64) * (labels + 1) + np.maximum(prediction[counted], 0)
    return np.bincount(joint, minlength=(labels + 1) ** 2).reshape(labels + 1, labels + 1)


def _divide(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def score_case(case: str, joint: np.ndarray, classes: tuple[ClassLabel, ...], voxel_mm3: float | None) -> list[CaseScore]:
    """The metrics of one case from its joint histogram of label numbers; `voxel_mm3` is None where voxels have no physical volume.

    With TP, FP, FN, TN of a class: Dice 2TP / (2TP + FP + FN) (Dice 1945), IoU TP / (TP + FP + FN) (Jaccard 1912),
    precision TP / (TP + FP), sensitivity TP / (TP + FN), specificity TN / (TN + FP). A metric whose denominator is 0 is None: a class
    absent from both has no Dice.
    A class that is predicted where the reference has none has Dice 0. A region counts all label numbers that belong to it.
    """
    total = int(joint.sum())
    scores = []
    for label, own in zip(classes, make_membership(classes)):
        hits = int(joint[own][:, own].sum())
        reference, predicted = int(joint[own].sum()), int(joint[:, own].sum())
        outside = total - reference  # true negatives and false positives
        scores.append(
            CaseScore(
                case=case,
                class_name=label.name,
                dice=_divide(2 * hits, reference + predicted),
                iou=_divide(hits, reference + predicted - hits),
                precision=_divide(hits, predicted),
                sensitivity=_divide(hits, reference),
                specificity=_divide(outside - (predicted - hits), outside),
                volume_reference_ml=None if voxel_mm3 is None else reference * voxel_mm3 / CUBIC_MM_PER_ML,
                volume_predicted_ml=None if voxel_mm3 is None else predicted * voxel_mm3 / CUBIC_MM_PER_ML,
                voxels_reference=reference,
                voxels_predicted=predicted,
            )
        )
    return scores
