"""How good a fold is on its validation cases: a few of them on the way, all of them in the end, objects by thresholds chosen on them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from autoseg.arrays.labels import list_painted
from autoseg.arrays.masks import paint_objects
from autoseg.commands.evaluate import Labelling, format_scores, save_scores, score_pairs
from autoseg.commands.evaluate_objects import format_object_scores, score_object_pairs
from autoseg.commands.job import Job
from autoseg.commands.predict import PredictOptions, list_scans, predict_cases
from autoseg.commands.tune import tune
from autoseg.errors import CasesFailed
from autoseg.evaluation.objects import LabelledObjects, count_objects, summarise_objects
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.summary import summarise
from autoseg.inference.export import choose_classes
from autoseg.inference.objects import Members, find_objects
from autoseg.inference.predictor import load_predictor
from autoseg.inference.sliding_window import compute_probabilities, predict_logits
from autoseg.io.files import load_record, save_record
from autoseg.networks.devices import Compute, choose_device
from autoseg.records.dataset import list_parts
from autoseg.records.detection import Thresholds
from autoseg.records.plan import Configuration, Product
from autoseg.records.prepared import PreparedCase
from autoseg.records.scores import InstanceScores, Scores
from autoseg.records.training import TrainingStatus
from autoseg.training.trainer import Validation

FOLLOWED_CASES = 3  # during the training; all are scored at its end


@dataclass(frozen=True)
class Metric:
    """What a training is followed by: the metric's name in scores.json, and what people call it."""

    name: str
    title: str


AP_CELL = Metric("ap_cell_50", "AP_cell@.5")
METRICS: dict[Product, Metric] = {"classes": Metric("dice", "Dice"), "objects": AP_CELL, "boundaries": AP_CELL}


def get_metric(configuration: Configuration) -> Metric:
    return METRICS[configuration.product]


def load_followed_cases(job: Job) -> list[PreparedCase]:
    """A few validation cases, evenly taken from the sorted list."""
    names = job.fold.validation
    count = min(FOLLOWED_CASES, len(names))
    return [job.store.load(names[index * len(names) // count]) for index in range(count)]


def validate_cases(network: torch.nn.Module, cases: list[PreparedCase], job: Job, compute: Compute) -> Validation:
    """Scores by class of whole prepared cases, on the network's own grid."""
    return VALIDATIONS[job.configuration.product](network, cases, job, compute)


def _validate_classes(network: torch.nn.Module, cases: list[PreparedCase], job: Job, compute: Compute) -> Validation:
    """Dice by class."""
    classes, rows, foreground, voxels = job.dataset.classes, [], 0, 0
    painted = list_painted(classes)
    for case in cases:
        box = tuple((0, size) for size in case.geometry.prepared_shape)
        logits = predict_logits(network, job.store.read_image(case.case, box), case.background, job.configuration, compute, mirror=False)
        chosen = choose_classes(compute_probabilities(logits, job.dataset.regions), job.dataset.regions)
        predicted = painted[chosen.numpy()]
        joint = count_joint(predicted, job.store.read_label(case.case, box), len(list_parts(classes)))
        rows += score_case(case.case, joint, classes, None)
        foreground, voxels = foreground + int(np.count_nonzero(predicted)), voxels + predicted.size
    scores = summarise(rows, classes)
    return Validation({name: intervals["dice"].mean for name, intervals in scores.classes.items()}, foreground / max(1, voxels))


def _validate_objects(network: torch.nn.Module, cases: list[PreparedCase], job: Job, compute: Compute) -> Validation:
    """AP_cell at an IoU of .5 by class, by the plan's thresholds."""
    members = Members((network.eval(),), job.configuration, compute)
    thresholds = job.configuration.thresholds or Thresholds()
    names = [label.name for label in job.dataset.classes]
    counts, foreground, voxels = {}, 0, 0
    for case in cases:
        shape = case.geometry.prepared_shape
        box = tuple((0, size) for size in shape)
        found = find_objects(members, job.store.read_image(case.case, box), case.background, thresholds)
        painted = paint_objects(found, shape, thresholds.mask)
        predicted = LabelledObjects(painted.ids, {number: one.class_number for number, one in enumerate(painted.objects, 1)})
        true = LabelledObjects(job.store.read_label(case.case, box), dict(enumerate(case.object_classes, 1)))
        counts[case.case] = count_objects(predicted, true, names)
        foreground, voxels = foreground + int(np.count_nonzero(painted.ids)), voxels + painted.ids.size
    scores = summarise_objects(counts)
    return Validation({name: intervals[AP_CELL.name].mean for name, intervals in scores.classes.items()}, foreground / max(1, voxels))


VALIDATIONS: dict[Product, Callable[[torch.nn.Module, list[PreparedCase], Job, Compute], Validation]] = {
    "classes": _validate_classes,
    "objects": _validate_objects,
    "boundaries": _validate_objects,
}


def validate_whole(job: Job) -> None:
    """Predicts the fold's validation cases from their scans, exactly as `predict` does, and scores them; thresholds are chosen first."""
    metric, mean = get_metric(job.configuration), None
    if job.fold.validation:
        scores = _score_validation(job)
        save_scores(scores, job.folder.validation / "scores.json")
        title = f"Fold {job.number}, {len(job.fold.validation)} validation cases"
        table = format_object_scores(scores, title) if isinstance(scores, InstanceScores) else format_scores(scores, title)
        job.progress.say(table, event="scores", mean=scores.mean)
        mean = scores.mean[metric.name]
    header = job.folder.load_model()
    status = load_record(TrainingStatus, job.folder.status)
    finished = msgspec.structs.replace(status, state="finished", step=header.steps, steps=header.steps, **{f"mean_{metric.name}": mean})
    save_record(job.folder.status, finished)
    job.progress.say(
        f"Model: {job.folder.path}\nNext: autoseg predict {job.run.path} SCANS -o OUT", event="model", folder=str(job.folder.path)
    )


def _score_validation(job: Job) -> Scores | InstanceScores:
    """Raises CasesFailed where a case cannot be predicted."""
    device = choose_device(job.options.device)
    if job.configuration.product != "classes" and job.folder.load_model().thresholds is None:
        tune(job, load_predictor([job.folder], device))
    predictor = load_predictor([job.folder], device)
    wanted = set(job.fold.validation)
    cases = [case for case in job.dataset.cases if case.id in wanted]
    root = Path(job.dataset.root)
    scans = list_scans(job.dataset, job.fold.validation)
    options = PredictOptions(keep=job.configuration.product == "classes")
    manifest = predict_cases(predictor, scans, job.folder.validation, (job.number,), options, job.progress)
    failed = [case for case in manifest.cases if case.state == "failed"]
    if failed:
        raise CasesFailed(f"{len(failed)} validation cases could not be predicted: {failed[0].message}", done="The model is written.")
    references = {case.id: root / (case.label or "") for case in cases}
    pairs = {case.case: (job.folder.validation / case.mask, references[case.case]) for case in manifest.cases}
    if job.configuration.product != "classes":
        return score_object_pairs(pairs, manifest, False, job.options.workers, job.progress)
    labelling = Labelling(job.dataset.classes, job.dataset.background_value, job.dataset.ignore_value, job.dataset.unit)
    return score_pairs(pairs, labelling, job.options.workers, job.progress)
