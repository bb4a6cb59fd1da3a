"""`autoseg evaluate`: predicted masks against references, per case and class."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.arrays.labels import encode_labels
from autoseg.errors import AutosegError, CasesFailed, InputError
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.summary import summarise
from autoseg.io.files import list_files, load_record, save_record, write_bytes
from autoseg.io.layouts import LABEL_SUFFIXES
from autoseg.io.machine import count_cores
from autoseg.io.patterns import get_file_part, match_paths, split_pattern
from autoseg.io.scans import get_ending, read_label, strip_ending
from autoseg.parallel import run_cases
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import ClassLabel, list_parts
from autoseg.records.predictions import Predictions
from autoseg.records.scores import METRICS, CaseScore, Scores

MANIFEST = "predictions.json"
FEW_CASES = 8  # below this many, starting worker processes takes longer than the work
SHOWN = ("dice", "iou", "precision", "sensitivity", "specificity")


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


def evaluate(
    predictions: str | Path,
    references: str | Path,
    output: str | Path | None = None,
    only_predicted: bool = False,
    workers: int | None = None,
    progress: Progress = Silent(),
) -> Scores:
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
    labelling = _take_labelling(manifest) if manifest else _find_labelling([reference for _, reference in pairs.values()])
    scores = score_pairs(pairs, labelling, workers, progress)
    target = Path(output) if output else folder / "scores.json"
    save_scores(scores, target)
    progress.say(format_scores(scores, f"{len(pairs)} cases"), event="scores", mean=scores.mean)
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


def find_references(references: str, cases: set[str], label_pattern: str) -> dict[str, Path]:
    """Case → reference below a folder or by a pattern.

    In a folder the pattern of the training labels is tried, then names equal to the cases' with and without a label suffix; the one that
    finds most of the cases counts.
    """
    if "{" in references:
        root, pattern = split_pattern(references)
        return {case: root / path for case, path in match_paths(pattern, list_files(root)).items()}
    root = Path(references)
    if not root.is_dir():
        raise InputError(f"{references} is neither a folder nor a pattern with {{case}}.")
    paths = list_files(root)
    patterns = [f"{{case}}{suffix}{{ext}}" for suffix in ("", *LABEL_SUFFIXES)]
    if label_pattern:
        patterns = [label_pattern, get_file_part(label_pattern), *patterns]
    found: dict[str, str] = {}
    for pattern in dict.fromkeys(patterns):
        trial = match_paths(pattern, paths)
        if len(cases & set(trial)) > len(cases & set(found)):
            found = trial
    return {case: root / path for case, path in found.items()}


def _take_labelling(manifest: Predictions) -> Labelling:
    return Labelling(manifest.classes, manifest.background_value, manifest.ignore_value, manifest.unit)


def _find_labelling(references: list[Path]) -> Labelling:
    """Every value in the references but 0 is a class."""
    values = sorted({int(value) for path in references for value in np.unique(read_label(path)[0])} - {0})
    return Labelling(tuple(ClassLabel(name=f"label_{value}", values=(value,)) for value in values))


def score_pairs(
    pairs: dict[str, tuple[Path, Path]],
    labelling: Labelling,
    workers: int | None = None,
    progress: Progress = Silent(),
) -> Scores:
    """Scores mask and reference files by case. Raises InputError with all pairs that do not fit each other."""
    tasks = [ScoreTask(case, mask, reference, labelling) for case, (mask, reference) in pairs.items()]
    count = 1 if len(tasks) < FEW_CASES else min(workers or count_cores(), len(tasks))
    rows: dict[str, list[CaseScore]] = {}
    problems: list[tuple[str, AutosegError]] = []
    progress.start("Scoring", len(tasks))
    for outcome in run_cases(score_files, tasks, count):
        if outcome.error is not None:
            problems.append((outcome.task.case, outcome.error))
        else:
            rows[outcome.task.case] = outcome.result or []
        progress.advance(outcome.task.case)
    progress.finish()
    if problems:
        table = "\n".join(f"{case}  {error.what} {error.why}".rstrip() for case, error in sorted(problems))
        raise InputError(f"{len(problems)} of {len(tasks)} pairs cannot be compared:\n{table}")
    return summarise([row for case in pairs for row in rows[case]], labelling.classes)


def score_files(task: ScoreTask) -> list[CaseScore]:
    """Scores one pair of files. Raises InputError for other shapes and for values that no class has."""
    mask, mask_grid = read_label(task.mask)
    reference, grid = read_label(task.reference)
    if mask.shape != reference.shape:
        raise InputError(f"the mask has {mask_grid.shape} voxels, the reference {grid.shape} (z, y, x).")
    labelling = task.labelling
    try:
        encoded = [encode_labels(values, labelling.classes, labelling.background, labelling.ignore) for values in (mask, reference)]
    except ValueError as error:
        raise InputError(f"{task.mask.name} or its reference: {error}.") from None
    voxel = float(np.prod(grid.spacing)) if labelling.unit == "mm" and len(grid.spacing) == 3 else None
    return score_case(task.case, count_joint(encoded[0], encoded[1], len(list_parts(labelling.classes))), labelling.classes, voxel)


def save_scores(scores: Scores, path: Path) -> None:
    """Writes scores.json, and the rows per case and class as CSV beside it; undefined values are empty cells."""
    save_record(path, scores)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "class", *METRICS, "voxels_reference", "voxels_predicted"])
    for row in scores.cases:
        values = [getattr(row, metric) for metric in METRICS]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([row.case, row.class_name, *cells, row.voxels_reference, row.voxels_predicted])
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
