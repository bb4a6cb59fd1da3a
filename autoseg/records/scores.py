"""How good masks are, per case and class, and what follows from it."""

from typing import Literal

import msgspec

from autoseg.records.base import Record, SavedRecord, decode
from autoseg.records.verdict import Finding, Fitness, Light


class Interval(Record, frozen=True, kw_only=True):
    """A mean over the `n` cases where the metric is defined, with its 95 % bootstrap interval over cases; None where n is 0."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


class SizeRecall(Record, frozen=True, kw_only=True):
    """How many of the lesions of some size were found: from `low_ml` to below `high_ml` (None: no upper limit).

    In 2D the sizes are areas in mm²; where there is no physical unit they are pixels or voxels.
    """

    low_ml: float
    high_ml: float | None
    lesions: int
    found: int


class CaseScore(Record, frozen=True, kw_only=True):
    """One class of one case. None where a metric is undefined: a class absent from prediction and reference has no Dice.

    Distances (evaluation/surface.py) are in mm, or in pixels where Scores.unit says so; None also where they were not asked for. Lesions
    are the connected objects of the class (evaluation/lesions.py), `lesions_false` those predicted that touch none of the reference.
    """

    case: str
    class_name: str = msgspec.field(name="class")
    dice: float | None
    iou: float | None
    precision: float | None
    sensitivity: float | None
    specificity: float | None
    accuracy: float | None = None
    mcc: float | None = None
    volume_reference_ml: float | None
    volume_predicted_ml: float | None
    volume_difference_ml: float | None = None
    hausdorff_mm: float | None = None
    hd95_mm: float | None = None
    assd_mm: float | None = None
    nsd: float | None = None
    voxels_reference: int
    voxels_predicted: int
    lesions_reference: int | None = None
    lesions_found: int | None = None
    lesions_predicted: int | None = None
    lesions_false: int | None = None
    lesion_recall: tuple[SizeRecall, ...] = ()


SURFACE_METRICS = ("hausdorff_mm", "hd95_mm", "assd_mm", "nsd")
METRICS = (
    *("dice", "iou", "precision", "sensitivity", "specificity", "accuracy", "mcc"),
    *("volume_reference_ml", "volume_predicted_ml", "volume_difference_ml", *SURFACE_METRICS),
)
COUNTS = (
    *("voxels_reference", "voxels_predicted"),
    *("lesions_reference", "lesions_found", "lesions_predicted", "lesions_false"),
)


class Scores(SavedRecord, frozen=True, kw_only=True):
    """`mean` is the mean over foreground classes of the class means, classes without a defined value left out.

    `unit` is that of the distances and of `nsd_tolerance`; `lesion_recall` by class and size over all cases, empty sizes left out.
    `lights`, `purposes` and `findings` are what evaluation/lights.py and evaluation/diagnosis.py make of it.
    `folds` are, where the cases were predicted by several folds, the mean Dice of each one's validation cases.
    """

    unit: Literal["mm", "px"] = "mm"
    nsd_tolerance: float = 1.0
    mean: dict[str, float | None]
    classes: dict[str, dict[str, Interval]]
    lesion_recall: dict[str, tuple[SizeRecall, ...]] = msgspec.field(default_factory=dict)
    cases: tuple[CaseScore, ...]
    lights: tuple[Light, ...] = ()
    purposes: tuple[Fitness, ...] = ()
    findings: tuple[Finding, ...] = ()
    folds: dict[str, float | None] = msgspec.field(default_factory=dict)


class InstanceScore(Record, frozen=True, kw_only=True):
    """The objects of one class in one case; None where a metric is undefined (evaluation/instances.py says where).

    `ap_cell_…` is TP / (TP + FP + FN), not the area under a curve. `sq` is the mean IoU of the matched objects; `count_error` is how many
    objects too many or too few were found, `count_bias` the same with its sign. The GlaS metrics are there where they were asked for.
    """

    case: str
    class_name: str = msgspec.field(name="class")
    ap_cell_50: float | None
    ap_cell_50_95: float | None
    f1_50: float | None
    f1_30: float | None
    f1_10: float | None
    precision_50: float | None
    recall_50: float | None
    pq: float | None
    sq: float | None
    dq: float | None
    aji: float | None
    aji_plus: float | None
    seg: float | None
    count_error: float | None
    count_bias: float | None
    object_f1: float | None = None
    object_dice: float | None = None
    object_hausdorff: float | None = None
    objects_reference: int
    objects_predicted: int


INSTANCE_METRICS = (
    *("ap_cell_50", "ap_cell_50_95", "f1_50", "f1_30", "f1_10", "precision_50", "recall_50", "pq", "sq", "dq", "aji", "aji_plus", "seg"),
    *("count_error", "count_bias"),
)
GLAS_METRICS = ("object_f1", "object_dice", "object_hausdorff")


class InstanceScores(SavedRecord, frozen=True, kw_only=True):
    """Scores of objects: as in Scores, the mean over classes, and per class the mean over cases with its interval.

    `pooled` are the metrics of all cases taken as one image. `coco_ap` (COCO's mask AP: mean over IoU .5 … .95, 101 points of recall, any
    number of detections) orders the detections of all cases by their scores: it is the same in `pooled` and, with an interval over
    cases, in `classes`; no case has its own; None where the masks come without scores. `folds` as in Scores, of `ap_cell_50`.
    """

    task: Literal["instance"] = "instance"
    mean: dict[str, float | None]
    classes: dict[str, dict[str, Interval]]
    pooled: dict[str, dict[str, float | None]]
    cases: tuple[InstanceScore, ...]
    folds: dict[str, float | None] = msgspec.field(default_factory=dict)


class _Task(msgspec.Struct):
    task: Literal["semantic", "instance"] = "semantic"


def decode_scores(data: bytes, source: str) -> Scores | InstanceScores:
    """Parses a scores.json of either task strictly; `source` names the file in errors. Raises RecordError."""
    try:
        task = msgspec.json.decode(data, type=_Task).task
    except msgspec.DecodeError:
        task = "semantic"  # the strict parser says what is wrong
    return decode(InstanceScores, data, source) if task == "instance" else decode(Scores, data, source)
