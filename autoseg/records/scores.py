"""How good masks are, per case and class, and what follows from it."""

import msgspec

from autoseg.records.base import Record, SavedRecord


class Interval(Record, frozen=True, kw_only=True):
    """A mean over the `n` cases where the metric is defined, with its 95 % bootstrap interval over cases; None where n is 0."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


class CaseScore(Record, frozen=True, kw_only=True):
    """One class of one case. None where a metric is undefined: a class absent from prediction and reference has no Dice."""

    case: str
    class_name: str = msgspec.field(name="class")
    dice: float | None
    iou: float | None
    precision: float | None
    sensitivity: float | None
    specificity: float | None
    volume_reference_ml: float | None
    volume_predicted_ml: float | None
    voxels_reference: int
    voxels_predicted: int


METRICS = ("dice", "iou", "precision", "sensitivity", "specificity", "volume_reference_ml", "volume_predicted_ml")


class Scores(SavedRecord, frozen=True, kw_only=True):
    """`mean` is the mean over foreground classes of the class means, classes without a defined value left out."""

    mean: dict[str, float | None]
    classes: dict[str, dict[str, Interval]]
    cases: tuple[CaseScore, ...]
