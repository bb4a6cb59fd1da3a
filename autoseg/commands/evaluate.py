"""`autoseg evaluate`: predicted masks against references, per case and class."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.arrays.labels import encode_labels, find_values
from autoseg.arrays.postprocessing import apply_rules
from autoseg.commands.evaluate_objects import format_object_scores, score_object_pairs
from autoseg.commands.measure import MANY_VALUES
from autoseg.commands.pairs import find_references, run_pairs
from autoseg.errors import CasesFailed, InputError
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.summary import summarise
from autoseg.io.files import list_files, load_record, save_record, write_bytes
from autoseg.io.scans import get_ending, read_label, strip_ending
from autoseg.progress import Progress, Silent
from autoseg.records.choice import Rule
from autoseg.records.dataset import ClassLabel, list_parts
from autoseg.records.predictions import Predictions
from autoseg.records.scores import GLAS_METRICS, INSTANCE_METRICS, METRICS, CaseScore, InstanceScores, Scores

MANIFEST = "predictions.json"
SHOWN = ("dice", "iou", "precision", "sensitivity", "specificity")


@dataclass(frozen=True)
class Wanted:
    """What to score: classes or objects ("": what masks and references show), and whether the GlaS measures too."""

    task: Literal["", "semantic", "instance"] = ""
    metrics: Literal["", "glas"] = ""


@dataclass(frozen=True)
class Labelling:
    """What the values in the masks mean."""

    classes: tuple[ClassLabel, ...]
    background: int = 0
    ignore: int | None = None
    unit: str = "mm"


@dataclass(frozen=True)
class ScoreTask:
    """One pair of files for a worker."""

    case: str
    mask: Path
    reference: Path
    labelling: Labelling
    rules: tuple[Rule, ...] = ()  # of post-processing, applied to the mask before it is scored


def evaluate(
    predictions: str | Path,
    references: str | Path,
    output: str | Path | None = None,
    only_predicted: bool = False,
    workers: int | None = None,
    progress: Progress = Silent(),
    wanted: Wanted = Wanted(),
) -> Scores | InstanceScores:
    """Scores a folder of masks against references: a folder, or a pattern with {case}. Writes scores.json and scores.csv.

    Raises InputError for a mask without reference or on another grid, and, after all else is scored, CasesFailed for references without a
    mask unless `only_predicted`.
    """
    folder = Path(predictions)
    masks, manifest = find_masks(folder)
    found = find_references(str(references), set(masks), manifest.label_pattern if manifest else "")
    lonely = sorted(set(masks) - set(found))
    if lonely:
        raise InputError(f"{len(lonely)} of {len(masks)} masks have no reference in {references}: {', '.join(lonely[:5])}.")
    missing = sorted(set(found) - set(masks))
    pairs = {case: (masks[case], found[case]) for case in sorted(masks)}
    labelling = choose_labelling(wanted, manifest, [reference for _, reference in pairs.values()])
    target = Path(output) if output else folder / "scores.json"
    scores: Scores | InstanceScores
    if labelling is None:
        scores = score_object_pairs(pairs, manifest, wanted.metrics == "glas", workers, progress)
        table = format_object_scores(scores, f"{len(pairs)} cases")
    else:
        scores = score_pairs(pairs, labelling, workers, progress)
        table = format_scores(scores, f"{len(pairs)} cases")
    save_scores(scores, target)
    progress.say(table, event="scores", mean=scores.mean)
    progress.say(f"Scores: {target} and {target.with_suffix('.csv')}")
    if missing and not only_predicted:
        raise CasesFailed(
            f"{len(missing)} references have no mask: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
            done=f"The {len(pairs)} others are scored.",
            todo="Predict them too, or add --only-predicted.",
        )
    return scores


def find_masks(folder: Path) -> tuple[dict[str, Path], Predictions | None]:
    """Case → mask in a folder, and its manifest if it has one. Raises InputError for a folder without masks."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of masks.")
    manifest = load_record(Predictions, folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if manifest is not None:
        masks = {case.case: folder / case.mask for case in manifest.cases if case.state == "done"}
    else:
        masks = {strip_ending(name): folder / name for name in list_files(folder) if get_ending(name) and "/" not in name}
    if not masks:
        raise InputError(f"{folder} holds no masks.")
    return masks, manifest


def choose_labelling(wanted: Wanted, manifest: Predictions | None, references: list[Path]) -> Labelling | None:
    """What the values mean; None where they are numbers of objects, which are scored one by one.

    Objects are what is asked for, what the manifest says, folders of one file per object, or more values than classes have, each of one
    object (as in planning). Raises InputError where that and what is asked for cannot both be.
    """
    task = wanted.task or (manifest.task if manifest else "instance" if wanted.metrics else "")
    in_files = any(reference.is_dir() for reference in references)
    if task == "semantic" and (in_files or wanted.metrics):
        what = "The references are folders of one file per object" if in_files else f"--metrics {wanted.metrics} is about objects"
        raise InputError(f"{what}, but classes are to be scored.", todo="--task instance scores the values of masks as objects.")
    if task == "instance" or in_files:
        return None
    if manifest is not None:
        return Labelling(manifest.classes, manifest.background_value, manifest.ignore_value, manifest.unit)
    values = sorted({value for path in references for value in find_values(read_label(path)[0])})
    if not task and len(values) > MANY_VALUES and all(_holds_single_objects(path) for path in references):
        return None
    return Labelling(tuple(ClassLabel(name=f"label_{value}", values=(value,)) for value in values))


def _holds_single_objects(path: Path) -> bool:
    """Whether every value of a label map is one connected object."""
    from scipy import ndimage  # .3 s, which only maps of many values need

    label = np.maximum(read_label(path)[0], 0)
    values, numbers = np.unique(label, return_inverse=True)
    label = numbers.reshape(label.shape) + int(values[0] > 0)  # numbered without gaps; 0 stays the background
    boxes = ndimage.find_objects(label)
    return all(ndimage.label(label[box] == value, np.ones((3,) * label.ndim))[1] == 1 for value, box in enumerate(boxes, 1))


def score_pairs(
    pairs: dict[str, tuple[Path, Path]],
    labelling: Labelling,
    workers: int | None = None,
    progress: Progress = Silent(),
    rules: tuple[Rule, ...] = (),
) -> Scores:
    """Scores mask and reference files by case. Raises InputError with all pairs that do not fit each other."""
    tasks = [ScoreTask(case, mask, reference, labelling, rules) for case, (mask, reference) in pairs.items()]
    rows = run_pairs(score_files, tasks, workers, progress)
    return summarise([row for own in rows.values() for row in own], labelling.classes)


def score_files(task: ScoreTask) -> list[CaseScore]:
    """Scores one pair of files. Raises InputError for other shapes and for values that no class has."""
    mask, reference, spacing = read_pair(task)
    classes = task.labelling.classes
    voxel = float(np.prod(spacing)) if task.labelling.unit == "mm" and len(spacing) == 3 else None
    return score_case(task.case, count_joint(mask, reference, len(list_parts(classes))), classes, voxel)


def read_pair(task: ScoreTask) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Label numbers of mask (its rules applied) and reference, and their spacing: mm, or ones where voxels have no physical size."""
    mask, mask_grid = read_label(task.mask)
    reference, grid = read_label(task.reference)
    if mask.shape != reference.shape:
        raise InputError(f"the mask has {mask_grid.shape} voxels, the reference {grid.shape} (z, y, x).")
    labelling = task.labelling
    try:
        encoded = [encode_labels(values, labelling.classes, labelling.background, labelling.ignore) for values in (mask, reference)]
    except ValueError as error:
        raise InputError(f"{task.mask.name} or its reference: {error}.") from None
    spacing = grid.spacing if labelling.unit == "mm" else (1.0,) * len(grid.spacing)
    return apply_rules(encoded[0], task.rules, labelling.classes, spacing), encoded[1], spacing


def save_scores(scores: Scores | InstanceScores, path: Path) -> None:
    """Writes scores.json, and the rows per case and class as CSV beside it; undefined values are empty cells."""
    save_record(path, scores)
    objects = isinstance(scores, InstanceScores)
    metrics = (*INSTANCE_METRICS, *GLAS_METRICS) if objects else METRICS
    counts = ("objects_reference", "objects_predicted") if objects else ("voxels_reference", "voxels_predicted")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "class", *metrics, *counts])
    for row in scores.cases:
        values = [getattr(row, metric) for metric in metrics]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([row.case, row.class_name, *cells, *(getattr(row, count) for count in counts)])
    write_bytes(path.with_suffix(".csv"), stream.getvalue().encode())


def format_scores(scores: Scores, title: str) -> str:
    """The table for the screen: a row per class with the number of cases in which it has a Dice, the mean, and the worst cases."""
    width = max(len("class"), *(len(name) for name in scores.classes))
    lines = [f"{title}:", f"  {'class':<{width}}  cases  " + "  ".join(f"{name:>11}" for name in SHOWN)]
    for name, intervals in scores.classes.items():
        lines.append(f"  {name:<{width}}  {intervals['dice'].n:>5}  " + "  ".join(f"{_show(intervals[m].mean):>11}" for m in SHOWN))
    lines.append(f"  {'mean':<{width}}  {'':>5}  " + "  ".join(f"{_show(scores.mean[m]):>11}" for m in SHOWN))
    absent = {name: sum(row.dice is None for row in scores.cases if row.class_name == name) for name in scores.classes}
    for name, count in absent.items():
        if count:
            lines.append(f"  {name} is absent from mask and reference of {count} cases: n/a there, left out of the means")
    worst = sorted((row.dice, row.case, row.class_name) for row in scores.cases if row.dice is not None)[:3]
    if len(scores.cases) > 3:
        lines.append("  lowest Dice: " + ", ".join(f"{case} ({name}) {dice:.3f}" for dice, case, name in worst))
    return "\n".join(lines)


def _show(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
