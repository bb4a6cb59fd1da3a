"""The learning rate over the steps, and how many steps the time allows."""

import math

from autoseg.records.plan import ScheduleSpec

POLY_POWER = 0.9  # nnU-Net's polynomial schedule
MARGIN = 1.03  # a step takes this much longer on average than its median
LEAST_STEPS = 10


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


def fit_steps(minutes: float, seconds_per_step: float, seconds_beside: float) -> int:
    """Steps that fill `minutes` of wall clock, less what validations on the way take.

    >>> fit_steps(1.03, 1.0, 0.0)
    60
    """
    return max(LEAST_STEPS, math.floor((minutes * 60 - seconds_beside) / (seconds_per_step * MARGIN) + 1e-9))
