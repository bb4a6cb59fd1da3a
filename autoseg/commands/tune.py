"""The thresholds that turn a model's answers into objects: chosen on validation images, whose answers are collected once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import msgspec
import numpy as np

from autoseg.arrays.masks import paint_objects
from autoseg.evaluation.instances import count_overlaps, score_tally, tally
from autoseg.inference.objects import Raw, RawDetections, settle
from autoseg.records.detection import Thresholds

PASSES = 2  # over all thresholds, one after the other
PLATEAU = 0.005  # of the score: all values this close to the best are as good, and their middle is taken
SCORES = tuple(step / 20 for step in range(1, 19))
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
MASKS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
SEEDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALL_SHARES = (0.0, 0.001, 0.005)  # quantiles of the true objects' sizes below which an object found may be left out


@dataclass(frozen=True)
class TuningCase:
    """What a model says of one prepared validation image, and the numbers of its true objects on the same voxels."""

    case: str
    raw: Raw
    reference: np.ndarray


@dataclass(frozen=True)
class Tuned:
    """Thresholds and what they reach on the cases that they were chosen on: the mean over images of (F1 at .5 + PQ) / 2."""

    thresholds: Thresholds
    score: float


def rate(case: TuningCase, thresholds: Thresholds) -> float:
    """(F1 at .5 + PQ) / 2 of one image, all classes as one; 1 where there is nothing to find and nothing found."""
    ids = paint_objects(settle(case.raw, thresholds), case.reference.shape, thresholds.mask).ids
    score = score_tally(case.case, "", tally(count_overlaps(ids, case.reference)))
    return 1.0 if score.f1_50 is None or score.pq is None else (score.f1_50 + score.pq) / 2


def choose_thresholds(cases: Sequence[TuningCase], start: Thresholds, advance: Callable[[], None] = lambda: None) -> Tuned:
    """Searches one threshold after the other, twice over all; of values that are as good as the best the middle one is taken.

    Starting where the plan says. Without cases nothing is changed and the score is 0.
    """
    if not cases:
        return Tuned(start, 0.0)
    known: dict[Thresholds, float] = {}

    def rate_all(thresholds: Thresholds) -> float:
        if thresholds not in known:
            known[thresholds] = float(np.mean([rate(case, thresholds) for case in cases]))
            advance()
        return known[thresholds]

    chosen = start
    for _, (name, values) in product(range(PASSES), list_choices(cases)):
        reached = [rate_all(msgspec.structs.replace(chosen, **{name: value})) for value in values]
        chosen = msgspec.structs.replace(chosen, **{name: take_middle(values, reached)})
    return Tuned(chosen, rate_all(chosen))


def list_choices(cases: Sequence[TuningCase]) -> list[tuple[str, tuple[float, ...]]]:
    """The thresholds that matter for these answers, in the order in which they are searched, each with its values."""
    sizes = np.concatenate([np.bincount(case.reference[case.reference > 0].ravel())[1:] for case in cases])
    sizes = sizes[sizes > 0]
    smallest = (
        tuple(sorted({float(np.floor(np.quantile(sizes, share))) if share else 0.0 for share in SMALL_SHARES})) if len(sizes) else (0.0,)
    )
    if isinstance(cases[0].raw, RawDetections):
        return [("score", SCORES), ("nms", OVERLAPS), ("mask", MASKS), ("smallest", smallest)]
    return [("seed", SEEDS), ("mask", MASKS), ("score", SCORES), ("smallest", smallest)]


def take_middle(values: Sequence[float], reached: Sequence[float]) -> float:
    """The middle of the plateau around the best value: of its neighbours that are within PLATEAU of it on either side.

    >>> take_middle((1, 2, 3, 4, 5), (0.1, 0.699, 0.7, 0.698, 0.2))
    3
    """
    best = int(np.argmax(reached))
    low = high = best
    while low > 0 and reached[low - 1] >= reached[best] - PLATEAU:
        low -= 1
    while high + 1 < len(values) and reached[high + 1] >= reached[best] - PLATEAU:
        high += 1
    return values[(low + high) // 2]
