"""`autoseg evaluate` for objects: maps of ids, with their classes and scores, against references of either form."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from autoseg.arrays.labels import find_values
from autoseg.commands.pairs import run_pairs
from autoseg.errors import InputError
from autoseg.evaluation.objects import ClassCounts, LabelledObjects, count_objects, summarise_objects
from autoseg.io.objects import CLASS_MAP, list_object_files, read_objects
from autoseg.io.scans import read_label, strip_ending
from autoseg.progress import Progress
from autoseg.records.dataset import ClassLabel
from autoseg.records.predictions import Predictions
from autoseg.records.scores import InstanceScores

ANY_OBJECT = ClassLabel(name="object", values=(1,))
TITLES = {
    "ap_cell_50": "AP_cell@.5 *",
    "ap_cell_50_95": "AP_cell mean .5:.95 *",
    "f1_50": "F1@.5",
    "f1_30": "F1@.3",
    "f1_10": "F1@.1",
    "precision_50": "precision@.5",
    "recall_50": "recall@.5",
    "pq": "PQ",
    "sq": "SQ (mean matched IoU)",
    "dq": "DQ",
    "aji": "AJI",
    "aji_plus": "AJI+",
    "seg": "SEG",
    "count_error": "count error",
    "count_bias": "count error, signed",
    "object_f1": "GlaS object F1",
    "object_dice": "GlaS object Dice",
    "object_hausdorff": "GlaS object Hausdorff",
    "coco_ap": "COCO mask AP, no cap",
}


class ListedObject(msgspec.Struct):
    """What scoring needs to know of an object in CASE_objects.json."""

    id: int
    class_name: str = msgspec.field(name="class")
    score: float


class ListedObjects(msgspec.Struct):
    objects: list[ListedObject]


@dataclass(frozen=True)
class ObjectPair:
    """One pair for a worker; `listing` is the mask's CASE_objects.json. With one class, every object is of it.

    `ignore` is the value in maps of reference ids that says nothing.
    """

    case: str
    mask: Path
    reference: Path
    listing: Path | None
    classes: tuple[ClassLabel, ...]
    with_glas: bool
    ignore: int | None = None


def score_object_pairs(
    pairs: dict[str, tuple[Path, Path]], manifest: Predictions | None, with_glas: bool, workers: int | None, progress: Progress
) -> InstanceScores:
    """Scores masks of ids against references by case. Raises InputError with all pairs that do not fit each other."""
    listings = {case: mask.with_name(f"{case}_objects.json") for case, (mask, _) in pairs.items()}
    listed = {case: path for case, path in listings.items() if path.is_file()}
    classes = choose_classes(manifest, list(listed.values()) if len(listed) == len(pairs) else [], progress)
    ignore = manifest.ignore_value if manifest is not None else None
    tasks = [ObjectPair(case, mask, truth, listed.get(case), classes, with_glas, ignore) for case, (mask, truth) in pairs.items()]
    return summarise_objects(run_pairs(score_object_files, tasks, workers, progress))


def choose_classes(manifest: Predictions | None, listings: list[Path], progress: Progress) -> tuple[ClassLabel, ...]:
    """The manifest's classes, or those that the lists of objects name; without a list of every mask all objects are of one class."""
    if manifest is not None and (listings or len(manifest.classes) == 1):
        return manifest.classes
    if listings:
        names = sorted({item.class_name for path in listings for item in read_listing(path).objects}) or [ANY_OBJECT.name]
        return tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate(names, 1))
    progress.say("Not every mask has its CASE_objects.json: all objects count as one class, and there is no COCO AP.")
    return (ANY_OBJECT,)


def score_object_files(pair: ObjectPair) -> list[ClassCounts]:
    """Counts one pair of files. Raises InputError for other shapes and for objects without a known class."""
    prediction = read_prediction(pair.mask, pair.listing, pair.classes)
    reference = read_reference(pair.reference, pair.classes, prediction.ids.shape, pair.ignore)
    if prediction.ids.shape != reference.ids.shape:
        axes = "(z, y, x)" if prediction.ids.ndim == 3 else "(y, x)"
        raise InputError(f"the mask has {prediction.ids.shape} voxels, the reference {reference.ids.shape} {axes}.")
    return count_objects(prediction, reference, [label.name for label in pair.classes], pair.with_glas)


def read_listing(path: Path) -> ListedObjects:
    """Raises InputError that names file and field."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ListedObjects)
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no list of objects.", f"{error}.") from None


def read_prediction(path: Path, listing: Path | None, classes: tuple[ClassLabel, ...]) -> LabelledObjects:
    """A mask of ids, with the classes and scores that its list gives them."""
    ids = read_label(path)[0]
    present = [value for value in find_values(ids) if value > 0]
    if listing is None:
        return LabelledObjects(ids, dict.fromkeys(present, 1))
    known = {item.id: item for item in read_listing(listing).objects}
    numbers = _number_classes({number: item.class_name for number, item in known.items()}, classes, listing)
    _refuse_unlisted(present, numbers, path, listing)
    return LabelledObjects(ids, numbers, {number: item.score for number, item in known.items()})


def read_reference(path: Path, classes: tuple[ClassLabel, ...], shape: tuple[int, ...], ignore: int | None = None) -> LabelledObjects:
    """A folder of one file per object, or a map of ids with its classes in a JSON of the same name; an empty folder is an empty map."""
    if path.is_dir() and not list_object_files(path):
        return LabelledObjects(np.zeros(shape, dtype=np.int32), {})
    listing = path.with_name(f"{strip_ending(path.name)}.json") if len(classes) > 1 else None
    if listing is not None and not listing.is_file():
        raise InputError(f"{listing} does not exist.", "It says of which class each object is.", todo=CLASS_MAP)
    found = read_objects(path, "files" if path.is_dir() else "ids", classes, object_classes=listing, ignore=ignore)
    return LabelledObjects(found.ids, dict(enumerate(found.classes, 1)))


def _number_classes(named: Mapping[int, Any], classes: tuple[ClassLabel, ...], source: Path) -> dict[int, int]:
    """Id → class number from class names, or from numbers that begin with 0 (nnDetection's form)."""
    if len(classes) == 1:
        return dict.fromkeys(named, 1)
    table: dict[Any, int] = {label.name: number for number, label in enumerate(classes, 1)}
    table |= {number: number + 1 for number in range(len(classes))}
    unknown = sorted({str(value) for value in named.values() if value not in table})
    if unknown:
        raise InputError(f"{source} names classes that are none of {', '.join(label.name for label in classes)}: {', '.join(unknown[:5])}.")
    return {number: table[value] for number, value in named.items()}


def _refuse_unlisted(present: list[int], listed: Mapping[int, int], path: Path, listing: Path) -> None:
    missing = [number for number in present if number not in listed]
    if missing:
        raise InputError(f"{path.name} holds {len(missing)} objects that {listing.name} does not list: {missing[:5]}.")


def format_object_scores(scores: InstanceScores, title: str) -> str:
    """The table for the screen: per class the mean over images with its interval and the pooled value; absent classes, worst cases."""
    lines = [f"{title}:", "  * AP_cell is TP / (TP + FP + FN) as in the Data Science Bowl 2018, not the area under a curve (COCO's AP)"]
    for name, intervals in scores.classes.items():
        rows = [row for row in scores.cases if row.class_name == name]
        true, found = sum(row.objects_reference for row in rows), sum(row.objects_predicted for row in rows)
        lines.append(f"  {name}: {found} predicted, {true} in the references")
        lines.append(f"    {'':<24}{'per image':>10}  {'95 % interval':>17}  {'cases':>5}  {'pooled':>8}")
        for metric, interval in intervals.items():
            mean = "" if metric == "coco_ap" else _show(interval.mean)
            bounds = f"{_show(interval.low)} … {_show(interval.high)}" if interval.n else ""
            lines.append(f"    {TITLES[metric]:<24}{mean:>10}  {bounds:>17}  {interval.n:>5}  {_show(scores.pooled[name][metric]):>8}")
        empty = sum(row.objects_reference == row.objects_predicted == 0 for row in rows)
        if empty:
            lines.append(
                f"    no {name} in mask and reference of {empty} cases: AP_cell is 1 there, all else n/a and left out of the means"
            )
        worst = sorted((row.ap_cell_50, row.case) for row in rows if row.ap_cell_50 is not None)[:3]
        if len(rows) > 3:
            lines.append("    lowest AP_cell@.5: " + ", ".join(f"{case} {value:.3f}" for value, case in worst))
    if len(scores.classes) > 1:
        lines.append("  mean over classes: " + ", ".join(f"{TITLES[metric]} {_show(value)}" for metric, value in scores.mean.items()))
    return "\n".join(lines)


def _show(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
