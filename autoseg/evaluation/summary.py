"""Means over cases and classes, with what is undefined left out and counted."""

from typing import Literal

import numpy as np

from autoseg.evaluation.lesions import sum_recall
from autoseg.records.dataset import ClassLabel
from autoseg.records.scores import METRICS, CaseScore, Interval, Scores

RESAMPLES = 2000
SEED = 0


def compute_interval(values: list[float | None]) -> Interval:
    """Mean over the defined values, with the 95 % percentile bootstrap interval over cases (Efron 1993, chapter 13); fixed seed."""
    defined = np.array([value for value in values if value is not None], dtype=np.float64)
    if not defined.size:
        return Interval(mean=None, low=None, high=None, n=0)
    draws = np.random.default_rng(SEED).integers(defined.size, size=(RESAMPLES, defined.size))
    low, high = np.quantile(defined[draws].mean(axis=1), (0.025, 0.975))
    return Interval(mean=float(defined.mean()), low=float(low), high=float(high), n=int(defined.size))


def summarise(cases: list[CaseScore], classes: tuple[ClassLabel, ...], unit: Literal["mm", "px"] = "mm", tolerance: float = 1.0) -> Scores:
    """Scores per class over all cases, and the mean over the classes that have a defined value; `unit` of distances and tolerance."""
    by_class, recall = {}, {}
    for label in classes:
        rows = [row for row in cases if row.class_name == label.name]
        by_class[label.name] = {metric: compute_interval([getattr(row, metric) for row in rows]) for metric in METRICS}
        recall[label.name] = sum_recall(rows)
    mean: dict[str, float | None] = {}
    for metric in METRICS:
        values = [intervals[metric].mean for intervals in by_class.values()]
        defined = [value for value in values if value is not None]
        mean[metric] = float(np.mean(defined)) if defined else None
    return Scores(unit=unit, nsd_tolerance=tolerance, mean=mean, classes=by_class, lesion_recall=recall, cases=tuple(cases))
