"""Scores of objects: one case class by class, and what follows over cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from autoseg.evaluation.detections import Detections, compute_average_precision, judge_detections
from autoseg.evaluation.glas import GlasTally, add_glas, tally_glas
from autoseg.evaluation.instances import Tally, count_overlaps, score_tally, tally
from autoseg.evaluation.summary import compute_interval
from autoseg.records.scores import GLAS_METRICS, INSTANCE_METRICS, InstanceScore, InstanceScores, Interval


@dataclass(frozen=True)
class LabelledObjects:
    """A map of ids (0 background, -1 to be ignored), the class number 1 … N of every id in it, and predicted ids' scores where known."""

    ids: np.ndarray
    classes: Mapping[int, int]
    scores: Mapping[int, float] | None = None


@dataclass(frozen=True)
class ClassCounts:
    """What is counted of one class in one case; `detections` where the predictions have scores, `glas` where it was asked for."""

    name: str
    tally: Tally
    detections: Detections | None = None
    glas: GlasTally | None = None


def count_objects(
    prediction: LabelledObjects, reference: LabelledObjects, names: Sequence[str], with_glas: bool = False
) -> list[ClassCounts]:
    """Counts every class of one case; objects are only matched within their class."""
    overlaps = count_overlaps(prediction.ids, reference.ids)
    true = np.array([reference.classes[number] for number in overlaps.reference_ids.tolist()], dtype=np.int64)
    found = np.array([prediction.classes[number] for number in overlaps.predicted_ids.tolist()], dtype=np.int64)
    counts = []
    for number, name in enumerate(names, 1):
        own = overlaps.select(true == number, found == number)
        detections = None
        if prediction.scores is not None:
            scores = np.array([prediction.scores[object_id] for object_id in own.predicted_ids.tolist()], dtype=np.float64)
            detections = judge_detections(own, scores)
        glas = tally_glas(own, prediction.ids, reference.ids) if with_glas else None
        counts.append(ClassCounts(name, tally(own), detections, glas))
    return counts


def make_row(case: str, counts: ClassCounts) -> InstanceScore:
    """The metrics of one class in one case."""
    row = score_tally(case, counts.name, counts.tally)
    return add_glas(row, counts.glas) if counts.glas is not None else row


def summarise_objects(cases: Mapping[str, Sequence[ClassCounts]]) -> InstanceScores:
    """Scores per class over all cases, pooled ones, and the mean over the classes that have a defined value; all cases have all classes."""
    by_class = [list(counts) for counts in zip(*cases.values(), strict=True)]
    classes, pooled, rows = {}, {}, {}
    for counts in by_class:
        name, own = counts[0].name, [make_row(case, one) for case, one in zip(cases, counts)]
        rows[name] = own
        metrics = INSTANCE_METRICS + (GLAS_METRICS if counts[0].glas is not None else ())
        precision = _compute_precision(counts)
        whole = make_row("", _pool(counts))
        classes[name] = {metric: compute_interval([getattr(row, metric) for row in own]) for metric in metrics} | {"coco_ap": precision}
        pooled[name] = {metric: getattr(whole, metric) for metric in metrics} | {"coco_ap": precision.mean}
    return InstanceScores(
        mean={metric: _mean([intervals[metric].mean for intervals in classes.values()]) for metric in next(iter(classes.values()), {})},
        classes=classes,
        pooled=pooled,
        cases=tuple(row for case in zip(*rows.values()) for row in case),
    )


def _compute_precision(counts: list[ClassCounts]) -> Interval:
    """Undefined unless every case has scores: AP needs the order of all predictions."""
    known = [one.detections for one in counts if one.detections is not None]
    return compute_average_precision(known if len(known) == len(counts) else [])


def _pool(counts: list[ClassCounts]) -> ClassCounts:
    glas = [one.glas for one in counts if one.glas is not None]
    return ClassCounts(counts[0].name, reduce(add, (one.tally for one in counts)), glas=reduce(add, glas) if glas else None)


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
