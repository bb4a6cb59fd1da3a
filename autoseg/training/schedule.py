"""The learning rate over the steps, and how many steps the time allows."""

import math

from msgspec.structs import replace

from autoseg.records.plan import ScheduleSpec
from autoseg.records.training import Course, Leg

POLY_POWER = 0.9  # nnU-Net's polynomial schedule
MARGIN = 1.03  # a step takes this much longer on average than its median
LEAST_STEPS = 10
ENDING_SHARE = 0.05  # of the steps planned, over which a learning rate is brought to its end on request
LEAST_ENDING = 10
RESTART_RATE = 0.5  # of the plan's, at the top of an extension


def compute_rate_factor(spec: ScheduleSpec, step: int, steps: int) -> float:
    """Factor on the learning rate at step 0 … steps - 1: a linear rise, then down so that it ends near zero.

    Cosine: Loshchilov 2017, arXiv 1608.03983.
    """
    rise = round(spec.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, steps - rise)
    match spec.name:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "poly":
            return (1 - progress) ** POLY_POWER


def compute_average_weight(spec: ScheduleSpec, step: int, steps: int) -> float:
    """Weight of the newest weights in the running average after step 0 …; larger at first, so that the start is forgotten."""
    return max(1 / max(1.0, spec.averaging * steps), 1 - (1 + step) / (10 + step))


def make_course(steps: int) -> Course:
    """The course that the plan foresees."""
    return Course(legs=(Leg(kind="planned", first=0, last=steps),))


def count_ending(leg: Leg, step: int) -> int:
    """Steps that remain when an end is asked for at `step`: a share of the leg's, at most what is left."""
    return min(max(LEAST_ENDING, round(ENDING_SHARE * (leg.last - leg.first))), leg.last - step)


def bring_to_end(course: Course, step: int) -> Course:
    """The course with an ending from `step` on; unchanged where it is ending already."""
    leg = course.legs[-1]
    if leg.kind == "ending" or step >= leg.last:
        return course
    return replace(course, legs=(*course.legs, Leg(kind="ending", first=step, last=step + count_ending(leg, step))))


def extend(course: Course, steps: int) -> Course:
    """The course with `steps` more at its end."""
    return replace(course, legs=(*course.legs, Leg(kind="extension", first=course.end, last=course.end + steps)))


def compute_course_factor(spec: ScheduleSpec, course: Course, step: int) -> float:
    """Factor on the learning rate at a step of the course.

    An ending falls linearly from the factor at its first step to nearly zero. An extension is a warm restart (Loshchilov 2017, arXiv
    1608.03983): the rate of a finished training is zero and would teach nothing more; the whole rate would throw away what was learnt, so
    it rises (over the warm-up's share of the new steps) to half of it and comes down again.
    """
    place = max(index for index, leg in enumerate(course.legs) if leg.first <= step)
    rescue = course.rescue.rate if course.rescue else 1.0
    return rescue * _compute_leg_factor(spec, course.legs, place, step)


def _compute_leg_factor(spec: ScheduleSpec, legs: tuple[Leg, ...], place: int, step: int) -> float:
    leg = legs[place]
    done, length = step - leg.first, leg.last - leg.first
    match leg.kind:
        case "planned":
            return compute_rate_factor(spec, done, length)
        case "extension":
            return RESTART_RATE * compute_rate_factor(spec, done, length)
        case "ending":
            return (1 - done / length) * _compute_leg_factor(spec, legs, place - 1, leg.first)


def compute_course_average(spec: ScheduleSpec, course: Course, step: int) -> float:
    """Weight of the newest weights in the running average; an extension starts its average anew, an ending goes on with the one before."""
    leg = next(leg for leg in reversed(course.legs) if leg.kind != "ending" and leg.first <= step)
    return compute_average_weight(spec, step - leg.first, leg.last - leg.first)


def fit_steps(minutes: float, seconds_per_step: float, seconds_beside: float) -> int:
    """Steps that fill `minutes` of wall clock, less what validations on the way take.

    >>> fit_steps(1.03, 1.0, 0.0)
    60
    """
    return max(LEAST_STEPS, math.floor((minutes * 60 - seconds_beside) / (seconds_per_step * MARGIN) + 1e-9))
