"""The gap between training and validation, seen in the log of a fold: the loss still falls, the score on unseen cases does not rise."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.records.verdict import Finding

LATE = 0.5  # share of the steps after which a training is compared with its end
STILL_FALLING = 0.1  # share of the whole fall of the loss that is left for the late part
NO_RISE = 0.005  # of the score from the best before to the best after


@dataclass(frozen=True)
class Point:
    """One row of a log in which whole cases were validated."""

    step: int
    loss: float
    score: float


@dataclass(frozen=True)
class Course:
    """What one training's log shows; `name` tells which."""

    name: str
    points: tuple[Point, ...]


def find_gaps(courses: Sequence[Course]) -> list[Finding]:
    """One finding for all trainings in whose late part only the training loss got better."""
    gaps = [text for course in courses if (text := _describe(course))]
    if not gaps:
        return []
    cure = "More steps will not help: more training cases will, or stronger augmentation (autoseg plan RUN --set configurations.NAME.…)."
    what = f"{len(gaps)} of {len(courses)} trainings learnt their cases further without getting better on unseen ones."
    return [Finding(name="gap", what=what, evidence="; ".join(gaps) + ".", cure=cure)]


def _describe(course: Course) -> str:
    """The gap in numbers, or nothing."""
    points = course.points
    early = [point for point in points if point.step <= LATE * points[-1].step] if points else []
    late = points[len(early) :]
    if len(early) < 2 or len(late) < 2:
        return ""
    whole, fall = early[0].loss - late[-1].loss, early[-1].loss - late[-1].loss
    before, after = (max(point.score for point in part) for part in (early, late))
    if whole <= 0 or fall < STILL_FALLING * whole or after > before + NO_RISE:
        return ""
    return (
        f"{course.name}: from step {early[-1].step} to {late[-1].step} the loss fell from {early[-1].loss:.3f} to {late[-1].loss:.3f}, "
        f"the best score went from {before:.3f} to {after:.3f}"
    )
