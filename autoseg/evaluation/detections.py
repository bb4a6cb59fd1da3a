"""COCO's mask AP: how well the scores of objects tell right from wrong, over all cases of a class."""

from dataclasses import dataclass

import numpy as np

from autoseg.evaluation.instances import AP_PERCENTS, Overlaps
from autoseg.evaluation.summary import SEED
from autoseg.records.scores import Interval

RECALLS = np.arange(101)  # in %
RESAMPLES = 100  # each sorts out every detection at ten limits


@dataclass(frozen=True)
class Detections:
    """The scored predictions of one class in one case: scores (m,), and whether each is right at all of AP_PERCENTS, bool (m, 10)."""

    scores: np.ndarray
    right: np.ndarray
    references: int


def judge_detections(overlaps: Overlaps, scores: np.ndarray) -> Detections:
    """By falling score each prediction takes the free reference of best IoU (Lin 2014, as pycocotools does); scores (m,)."""
    right = np.zeros((scores.size, len(AP_PERCENTS)), dtype=bool)
    order = np.lexsort((-overlaps.iou, overlaps.columns, -scores[overlaps.columns]))
    pairs = list(zip(overlaps.rows[order].tolist(), overlaps.columns[order].tolist()))
    for limit, percent in enumerate(AP_PERCENTS):
        close = (100 * overlaps.shared >= percent * overlaps.united)[order]
        taken: set[int] = set()
        for place in np.flatnonzero(close).tolist():
            row, column = pairs[place]
            if row not in taken and not right[column, limit]:
                taken.add(row)
                right[column, limit] = True
    return Detections(scores, right, overlaps.reference_areas.size)


def compute_average_precision(cases: list[Detections]) -> Interval:
    """AP over the pooled detections of all cases, mean over AP_PERCENTS, with its 95 % bootstrap interval over cases.

    None where there is no reference object; no limit on the number of detections. Detections of equal score stay in the order of the cases.
    """
    if not cases:
        return Interval(mean=None, low=None, high=None, n=0)
    scores = np.concatenate([case.scores for case in cases])
    order = np.argsort(-scores, kind="stable")
    owners = np.repeat(np.arange(len(cases)), [case.scores.size for case in cases])[order]
    right = np.ascontiguousarray(np.concatenate([case.right for case in cases])[order].T)
    references = np.array([case.references for case in cases])
    mean = _compute_area(right, np.ones(owners.size, np.int64), int(references.sum()))
    if mean is None:
        return Interval(mean=None, low=None, high=None, n=0)
    draws = np.random.default_rng(SEED).multinomial(len(cases), np.full(len(cases), 1 / len(cases)), RESAMPLES)
    areas = [_compute_area(right, times[owners], int(times @ references)) for times in draws]
    low, high = np.quantile([area for area in areas if area is not None], (0.025, 0.975))
    return Interval(mean=mean, low=float(low), high=float(high), n=len(cases))


def _compute_area(right: np.ndarray, times: np.ndarray, references: int) -> float | None:
    """AP of detections by falling score, bool (limits, m), each counted `times` (m,): the best precision from each of 101 recalls on."""
    if references == 0:
        return None
    hits = np.cumsum(right * times, axis=1)
    precision = hits / np.maximum(np.cumsum(times), 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(best, ((0, 0), (0, 1)))  # recalls that are never reached have precision 0
    needed = -(-RECALLS * references // 100)  # hits, rounded up
    return float(np.mean([row[np.searchsorted(found, needed)].mean() for row, found in zip(padded, hits)]))
