"""The thresholds that turn a model's answers into objects: chosen on validation images, whose answers are collected once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

import msgspec
import numpy as np

from autoseg.arrays.masks import paint_objects
from autoseg.commands.job import Job
from autoseg.evaluation.instances import count_overlaps, score_tally, tally
from autoseg.inference.objects import Members, Raw, RawDetections, collect, settle
from autoseg.inference.predictor import Predictor
from autoseg.io.files import save_record
from autoseg.records.detection import Thresholds

MOST_CASES = 40  # validation images, evenly taken
MOST_VOXELS = 1e8  # of them, so that their answers fit the memory
LEAST_HALVES = 8  # images from which on each half is judged by the thresholds of the other
PASSES = 2  # over all thresholds, one after the other
PLATEAU = 0.005  # of the score: all values this close to the best are as good, and their middle is taken
SCORES = tuple(step / 20 for step in range(2, 19))
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
MASKS = tuple(step / 20 for step in range(6, 15))
SEEDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALL_SHARES = (0.002, 0.005, 0.01, 0.02)  # quantiles of the true objects' sizes below which an object found may be left out


@dataclass(frozen=True)
class TuningCase:
    """What a model says of one prepared validation image, and the numbers of its true objects on the same voxels."""

    case: str
    raw: Raw
    reference: np.ndarray


@dataclass
class Judge:
    """Rates thresholds by (F1 at .5 + PQ) / 2 of each image, all classes as one; what was rated once is known.

    1 where there is nothing to find and nothing is found. `advance` is called after every image.
    """

    cases: Sequence[TuningCase]
    advance: Callable[[], None] = lambda: None
    known: dict[tuple[str, Thresholds], float] = field(default_factory=dict)

    def rate(self, case: TuningCase, thresholds: Thresholds) -> float:
        key = (case.case, thresholds)
        if key not in self.known:
            ids = paint_objects(settle(case.raw, thresholds), case.reference.shape, thresholds.mask).ids
            score = score_tally(case.case, "", tally(count_overlaps(ids, case.reference)))
            self.known[key] = 1.0 if score.f1_50 is None or score.pq is None else (score.f1_50 + score.pq) / 2
            self.advance()
        return self.known[key]

    def rate_all(self, cases: Sequence[TuningCase], thresholds: Thresholds) -> float:
        return float(np.mean([self.rate(case, thresholds) for case in cases]))

    def choose(self, cases: Sequence[TuningCase], start: Thresholds) -> Thresholds:
        """Searches one threshold after the other, twice over all; of values about as good as the best the middle one is taken.

        Of least sizes it is the best itself, of equals the lowest: small objects are left out only where that helps.
        """
        chosen = start
        for _, (name, values) in product(range(PASSES), list_choices(cases)):
            reached = [self.rate_all(cases, msgspec.structs.replace(chosen, **{name: value})) for value in values]
            best = values[int(np.argmax(reached))] if name == "smallest" else take_middle(values, reached)
            chosen = msgspec.structs.replace(chosen, **{name: best})
        return chosen

    def judge_halves(self, start: Thresholds) -> float | None:
        """The mean rating when each half of the images is judged by the thresholds of the other; None with few images."""
        halves = self.cases[::2], self.cases[1::2]
        if len(self.cases) < LEAST_HALVES:
            return None
        rated = [self.rate(case, self.choose(other, start)) for own, other in (halves, halves[::-1]) for case in own]
        return float(np.mean(rated))


def list_choices(cases: Sequence[TuningCase]) -> list[tuple[str, tuple[float, ...]]]:
    """The thresholds that matter for these answers, in the order in which they are searched, each with its values."""
    sizes = np.concatenate([np.bincount(case.reference[case.reference > 0].ravel()) for case in cases])
    sizes = sizes[sizes > 0]
    quantiles = {float(np.floor(size)) for size in np.quantile(sizes, SMALL_SHARES)} if len(sizes) else set()
    smallest = tuple(sorted({0.0} | quantiles))
    if isinstance(cases[0].raw, RawDetections):
        return [("score", SCORES), ("nms", OVERLAPS), ("mask", MASKS), ("smallest", smallest)]
    return [("seed", SEEDS), ("mask", MASKS), ("score", SCORES), ("smallest", smallest)]


def take_middle(values: Sequence[float], reached: Sequence[float]) -> float:
    """The middle of the plateau around the best value: of its neighbours on either side that are within PLATEAU of it.

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


def tune(job: Job, predictor: Predictor) -> None:
    """Chooses a model's thresholds on its fold's validation images and writes them into its header."""
    header = predictor.header
    start = header.configuration.thresholds or Thresholds()
    judge = Judge(collect_cases(job, predictor), job.progress.advance)
    job.progress.start("Choosing thresholds", 0)
    chosen = judge.choose(judge.cases, start)
    crossed = judge.judge_halves(start)
    job.progress.finish()
    ratings = [judge.rate_all(judge.cases, thresholds) for thresholds in (start, chosen)]
    text = f"Thresholds chosen on {len(judge.cases)} validation images: {describe(chosen, judge.cases[0].raw)}. "
    text += f"(F1@.5 + PQ) / 2 is {ratings[1]:.3f} there, {ratings[0]:.3f} by the plan's"
    text += f", and {crossed:.3f} where each half is judged by the other's." if crossed is not None else "."
    job.progress.say(text, event="thresholds", rating=ratings[1], rating_before=ratings[0], rating_crossed=crossed)
    save_record(job.folder.model, msgspec.structs.replace(header, thresholds=chosen))


def describe(thresholds: Thresholds, raw: Raw) -> str:
    names = ("score", "nms", "mask", "smallest") if isinstance(raw, RawDetections) else ("seed", "mask", "score", "smallest")
    return ", ".join(f"{name} {getattr(thresholds, name):g}" for name in names)


def collect_cases(job: Job, predictor: Predictor) -> list[TuningCase]:
    """A model's answers on prepared validation images, evenly taken from the sorted list; one at least."""
    names = job.fold.validation
    count = min(MOST_CASES, len(names))
    members = Members(predictor.networks, predictor.header.configuration, predictor.compute)
    cases: list[TuningCase] = []
    voxels = 0
    job.progress.start("Looking at validation images", count)
    for name in (names[index * len(names) // count] for index in range(count)):
        record = job.store.load(name)
        shape = record.geometry.prepared_shape
        voxels += int(np.prod(shape))
        if cases and voxels > MOST_VOXELS:
            break
        box = tuple((0, size) for size in shape)
        raw = collect(members, job.store.read_image(name, box), record.background)
        cases.append(TuningCase(name, raw, job.store.read_label(name, box)))
        job.progress.advance(name)
    job.progress.finish()
    return cases
