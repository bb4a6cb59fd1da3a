"""`autoseg evaluate`: predicted masks against references, per case and class."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.arrays.labels import encode_labels, find_values, make_membership
from autoseg.arrays.postprocessing import apply_rules
from autoseg.commands.evaluate_objects import format_object_scores, score_object_pairs
from autoseg.commands.measure import MANY_VALUES
from autoseg.commands.pairs import find_references, run_pairs
from autoseg.commands.verdict import choose_limits, format_verdict, judge
from autoseg.errors import CasesFailed, InputError
from autoseg.evaluation.lesions import add_lesions, choose_decades, find_lesions
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.summary import summarise
from autoseg.evaluation.surface import add_surfaces, measure_surfaces
from autoseg.io.files import list_files, load_record, save_record, write_bytes
from autoseg.io.scans import choose_unit, describe_other_place, get_ending, orient_spacing, read_label, strip_ending
from autoseg.progress import Progress, Silent
from autoseg.records.choice import Rule
from autoseg.records.dataset import ClassLabel, list_parts
from autoseg.records.predictions import Predictions
from autoseg.records.scores import COUNTS, GLAS_METRICS, INSTANCE_METRICS, METRICS, CaseScore, InstanceScores, Scores, SizeRecall

MANIFEST = "predictions.json"
SHOWN = ("dice", "iou", "nsd", "hd95_mm", "precision", "sensitivity")
SHOWN_OVERLAP = ("dice", "iou", "precision", "sensitivity", "specificity")
TOLERANCES = {"mm": 1.0, "px": 2.0}  # of the NSD, where none is asked for
SCATTERED = 1.5  # lesions in a case that has the class, from which on they are told about


@dataclass(frozen=True)
class Wanted:
    """What to score: classes or objects ("": what masks and references show), and by what.

    `metrics`: all of classes, or of overlap only, which is quickest; of objects "glas" adds the GlaS measures. `tolerance` is that of the
    NSD in mm or pixels (None: 1 mm, 2 pixels). With `only_predicted` references without a mask are no error. `limits` are
    those of the traffic light that are not its own (metric, green, amber).
    """

    task: Literal["", "semantic", "instance"] = ""
    metrics: Literal["", "overlap", "glas"] = ""
    tolerance: float | None = None
    only_predicted: bool = False
    limits: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True)
class Labelling:
    """What the values in the masks mean."""

    classes: tuple[ClassLabel, ...]
    background: int = 0
    ignore: int | None = None
    unit: Literal["mm", "px"] = "mm"


@dataclass(frozen=True)
class ScoreTask:
    """One pair of files for a worker; without a `tolerance` only overlap is scored."""

    case: str
    mask: Path
    reference: Path
    labelling: Labelling
    tolerance: float | None = None
    rules: tuple[Rule, ...] = ()  # of post-processing, applied to the mask before it is scored


@dataclass(frozen=True)
class LabelPair:
    """Label numbers of mask (its rules applied) and reference, their spacing (mm; ones where voxels have no physical size), and

    how the headers of both files disagree, in words; empty where they lie on one grid.
    """

    mask: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, ...]
    mismatch: str


@dataclass(frozen=True)
class ScoredPair:
    """The scores of one case, a row per class, and how mask and reference disagree about their grid."""

    rows: list[CaseScore]
    mismatch: str


def evaluate(
    predictions: str | Path,
    references: str | Path,
    output: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = Silent(),
    wanted: Wanted = Wanted(),
) -> Scores | InstanceScores:
    """Scores a folder of masks against references: a folder, or a pattern with {case}. Writes scores.json and scores.csv.

    Raises InputError for a mask without reference or on another grid, and, after all else is scored, CasesFailed for references without a
    mask unless `wanted.only_predicted`.
    """
    folder, limits = Path(predictions), choose_limits(wanted.limits)
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
        scores = judge(score_pairs(pairs, labelling, workers, progress, wanted), limits)
        table = format_scores(scores, f"{len(pairs)} cases")
    save_scores(scores, target)
    progress.say(table, event="scores", mean=scores.mean)
    if isinstance(scores, Scores):
        progress.say(format_verdict(scores), event="verdict")
    progress.say(f"Scores: {target} and {target.with_suffix('.csv')}")
    if missing and not wanted.only_predicted:
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
    object (as in planning). Raises InputError where that and what is asked for cannot both be, and where nothing names a class.
    """
    task = choose_task(wanted, manifest, any(reference.is_dir() for reference in references))
    if task == "instance":
        return None
    if manifest is not None:
        return Labelling(manifest.classes, manifest.background_value, manifest.ignore_value, manifest.unit)
    values = sorted({value for path in references for value in find_values(read_label(path)[0])})
    if not task and len(values) > MANY_VALUES and all(_holds_single_objects(path) for path in references):
        return None
    if not values:
        raise InputError(
            "Every reference is empty (only 0), so there is no class to be scored.",
            "Masks of `autoseg predict` know their classes (predictions.json); these have no such file.",
            todo="Give references that hold a class.",
        )
    unit: Literal["mm", "px"] = "px" if choose_unit(references) == "px" else "mm"
    return Labelling(tuple(ClassLabel(name=f"label_{value}", values=(value,)) for value in values), unit=unit)


def choose_task(wanted: Wanted, manifest: Predictions | None, in_files: bool) -> str:
    """Classes or objects, or "" where nothing asked for says so; `in_files`: the references are folders of one file per object."""
    of_classes = "--metrics overlap" if wanted.metrics == "overlap" else "--tolerance" if wanted.tolerance is not None else ""
    meant = "instance" if wanted.metrics == "glas" else "semantic" if of_classes else ""
    task = wanted.task or (manifest.task if manifest else "instance" if in_files else meant)
    if task == "semantic" and (in_files or wanted.metrics == "glas"):
        what = "The references are folders of one file per object" if in_files else "--metrics glas is about objects"
        raise InputError(f"{what}, but classes are to be scored.", todo="--task instance scores the values of masks as objects.")
    if task == "instance" and of_classes:
        raise InputError(f"{of_classes} is about classes, but objects are to be scored.", todo="Leave it out, or add --task semantic.")
    return task


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
    wanted: Wanted = Wanted(),
    rules: tuple[Rule, ...] = (),
) -> Scores:
    """Scores mask and reference files by case. Raises InputError with all pairs that do not fit each other."""
    tolerance = wanted.tolerance or TOLERANCES[labelling.unit]
    asked = None if wanted.metrics == "overlap" else tolerance
    tasks = [ScoreTask(case, mask, reference, labelling, asked, rules) for case, (mask, reference) in pairs.items()]
    scored = run_pairs(score_files, tasks, workers, progress)
    _warn_of_grids({case: pair.mismatch for case, pair in scored.items() if pair.mismatch}, len(scored), progress)
    return summarise([row for pair in scored.values() for row in pair.rows], labelling.classes, labelling.unit, tolerance)


def _warn_of_grids(mismatches: dict[str, str], count: int, progress: Progress) -> None:
    """Says once that headers disagree, as planning does: they are often wrong where the voxels are right."""
    if mismatches:
        first = next(iter(mismatches))
        progress.warn(
            f"{len(mismatches)} of {count} masks have the shape of their reference but another geometry in the header (first: {first}, "
            f"{mismatches[first]}). They are compared voxel by voxel, at the reference's spacing: were they made from the same scans?",
            event="other_grid",
            cases=len(mismatches),
        )


def score_files(task: ScoreTask) -> ScoredPair:
    """Scores one pair of files; the reference's voxels count. Raises InputError for other shapes and for values that no class has."""
    pair = read_pair(task)
    return ScoredPair(_score_pair(task, pair.mask, pair.reference, pair.spacing), pair.mismatch)


def _score_pair(task: ScoreTask, mask: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> list[CaseScore]:
    classes = task.labelling.classes
    size = float(np.prod(spacing)) if task.labelling.unit == "mm" else None
    joint = count_joint(mask, reference, len(list_parts(classes)))
    rows = score_case(task.case, joint, classes, size if len(spacing) == 3 else None)
    if task.tolerance is None:
        return rows
    membership = make_membership(classes)
    rows = add_surfaces(rows, measure_surfaces(mask, reference, membership, spacing, task.tolerance))
    return add_lesions(rows, find_lesions(mask, reference, membership), *choose_decades(reference.ndim, size))


def read_pair(task: ScoreTask) -> LabelPair:
    """Both files of a pair. Raises InputError for other shapes and for values that no class has."""
    mask, mask_grid = read_label(task.mask)
    reference, grid = read_label(task.reference)
    if mask.shape != reference.shape:
        raise InputError(f"the mask has {mask_grid.shape} voxels, the reference {grid.shape} (z, y, x).")
    labelling = task.labelling
    try:
        encoded = [encode_labels(values, labelling.classes, labelling.background, labelling.ignore) for values in (mask, reference)]
    except ValueError as error:
        raise InputError(f"{task.mask.name} or its reference: {error}.") from None
    solid = labelling.unit == "mm"
    spacing = orient_spacing(grid) if solid else (1.0,) * reference.ndim
    ruled = apply_rules(encoded[0], task.rules, labelling.classes, spacing)
    return LabelPair(ruled, encoded[1], spacing, describe_other_place(mask_grid, grid) if solid else "")


def save_scores(scores: Scores | InstanceScores, path: Path) -> None:
    """Writes scores.json, and the rows per case and class as CSV beside it; undefined values are empty cells."""
    save_record(path, scores)
    objects = isinstance(scores, InstanceScores)
    metrics = (*INSTANCE_METRICS, *GLAS_METRICS) if objects else METRICS
    counts = ("objects_reference", "objects_predicted") if objects else COUNTS
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "class", *metrics, *counts])
    for row in scores.cases:
        values = [getattr(row, metric) for metric in metrics]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([row.case, row.class_name, *cells, *(getattr(row, count) for count in counts)])  # csv leaves None empty
    write_bytes(path.with_suffix(".csv"), stream.getvalue().encode())


def format_scores(scores: Scores, title: str) -> str:
    """The table for the screen: a row per class with the number of cases in which it has a Dice, the mean, and the worst cases."""
    shown = SHOWN if any(row.nsd is not None for row in scores.cases) else SHOWN_OVERLAP
    titles = {"nsd": f"nsd {scores.nsd_tolerance:g} {scores.unit}", "hd95_mm": f"hd95 ({scores.unit})"}
    width = max(len("class"), *(len(name) for name in scores.classes))
    lines = [f"{title}:", f"  {'class':<{width}}  cases  " + "  ".join(f"{titles.get(name, name):>11}" for name in shown)]
    for name, intervals in scores.classes.items():
        lines.append(f"  {name:<{width}}  {intervals['dice'].n:>5}  " + "  ".join(f"{_show(intervals[m].mean):>11}" for m in shown))
    lines.append(f"  {'mean':<{width}}  {'':>5}  " + "  ".join(f"{_show(scores.mean[m]):>11}" for m in shown))
    known = {name: own["dice"] for name, own in scores.classes.items() if own["dice"].n}
    if known:
        bounds = ", ".join(f"{name} {_show(own.low)} … {_show(own.high)}" for name, own in known.items())
        lines.append(f"  dice, 95 % interval over cases: {bounds}")
    for name in scores.classes:
        lines += _tell_of_class(name, [row for row in scores.cases if row.class_name == name], scores)
    worst = sorted((row.dice, row.case, row.class_name) for row in scores.cases if row.dice is not None)[:3]
    if len(scores.cases) > 3:
        lines.append("  lowest Dice: " + ", ".join(f"{case} ({name}) {dice:.3f}" for dice, case, name in worst))
    return "\n".join(lines)


def _tell_of_class(name: str, rows: list[CaseScore], scores: Scores) -> list[str]:
    """In how many cases a class has no value, and, where it is scattered over several lesions, how many of those were found."""
    lines = []
    absent = sum(row.dice is None for row in rows)
    if absent:
        lines.append(f"  {name} is absent from mask and reference of {absent} cases: n/a there, left out of the means")
    alone = sum(row.nsd is not None and row.hd95_mm is None for row in rows)
    if alone:
        lines.append(
            f"  {name} is in mask or reference alone of {alone} cases: Dice and nsd are 0 there, distances n/a and left out of the means"
        )
    lesions = [row.lesions_reference for row in rows if row.lesions_reference]
    if lesions and sum(lesions) >= SCATTERED * len(lesions):
        found, predicted, false = (sum(getattr(row, f"lesions_{what}") or 0 for row in rows) for what in ("found", "predicted", "false"))
        sizes = ", ".join(_tell_size(part, _choose_size_unit(rows, scores)) for part in scores.lesion_recall[name])
        lines.append(f"  {name}: {found} of {sum(lesions)} lesions found ({sizes}); {false} of {predicted} predicted are false")
    return lines


def _choose_size_unit(rows: list[CaseScore], scores: Scores) -> str:
    solid = any(row.volume_reference_ml is not None for row in rows)
    return "voxels" if scores.unit == "px" else "ml" if solid else "mm²"


def _tell_size(part: SizeRecall, unit: str) -> str:
    size = f"from {part.low_ml:g}" if part.high_ml is None else f"{part.low_ml:g} to {part.high_ml:g}"
    return f"{size} {unit} {part.found} of {part.lesions}"


def _show(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
