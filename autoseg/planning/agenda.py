"""How the time for a whole run is shared among its trainings, and what is left out."""

import math

from autoseg.planning.plan import DEFAULT_MINUTES
from autoseg.records.agenda import Agenda, LeftOut, Training
from autoseg.records.plan import ConfigurationName, Plan

RESERVE_SHARE = 0.1  # of all the time
RESERVE_EACH = 0.5  # minutes, for each training
LEAST_MINUTES = 1.0  # of a training: in less, a network learns nothing that five folds would confirm
WORTH_MINUTES = DEFAULT_MINUTES  # of a training: what the first configuration's folds shall have before a second one takes of their time


def share_minutes(minutes: float, rounds: int) -> float:
    """Training minutes for each of `rounds` trainings that follow each other, of `minutes` in all.

    A tenth stays for planning, preparing, the validations of whole cases and the selection; at least half a minute for each training,
    since the timing of precisions and steps before it takes that however short it is. Of the shortest times half is trained.

    >>> share_minutes(45, 5)
    8.1
    >>> share_minutes(9, 5)
    1.3
    """
    reserve = max(RESERVE_SHARE * minutes, RESERVE_EACH * rounds)
    return max(minutes - reserve, minutes / 2) / rounds


def make_agenda(plan: Plan, folds: int, minutes: float | None = None, at_once: int = 1) -> Agenda:
    """The trainings of a run, the most valuable first: all folds of the plan's default configuration, then those of the others.

    `minutes` are those for everything, shared equally (None: every training goes by the plan's schedule, and nothing is left out that can
    be trained); `at_once` folds of a configuration are trained side by side. All folds come before a second configuration, since only
    they give every case a mask by a model that has not seen it; a further configuration joins where each training still gets
    `WORTH_MINUTES`, also on a GPU, where nobody knows before the first step what the plan's epochs would take.
    """
    names, left_out = _list_trainable(plan, folds)
    kept, each = folds, None
    if minutes is not None:
        rounds = math.ceil(folds / at_once)
        kept = _count_folds(folds, minutes, at_once)
        joined = _count_configurations(len(names), rounds, minutes) if kept == folds else 1
        left_out = [*_leave_folds(names[0], kept, folds, at_once), *_leave_configurations(names, joined, folds, rounds), *left_out]
        names = names[:joined]
        each = share_minutes(minutes, joined * math.ceil(kept / at_once))
    return Agenda(
        trainings=tuple(Training(configuration=name, fold=fold) for name in names for fold in range(kept)),
        left_out=tuple(left_out),
        hours=minutes / 60 if minutes is not None else None,
        minutes=each,
    )


def _list_trainable(plan: Plan, folds: int) -> tuple[list[ConfigurationName], list[LeftOut]]:
    """Names of the configurations that can be trained, the default first; and the second stages of cascades."""
    ordered = sorted(plan.configurations, key=lambda configuration: configuration.name != plan.default_configuration)
    reason = "this version cannot train the second stage of a cascade yet"
    cascades = [LeftOut(configuration=c.name, folds=tuple(range(folds)), reason=reason) for c in ordered if c.previous is not None]
    return [c.name for c in ordered if c.previous is None], cascades


def _count_folds(folds: int, minutes: float, at_once: int) -> int:
    """As many as get the least time each, at least as many as are trained side by side."""
    enough = [count for count in range(folds, 0, -1) if share_minutes(minutes, math.ceil(count / at_once)) >= LEAST_MINUTES]
    return enough[0] if enough else min(folds, at_once)


def _count_configurations(count: int, rounds: int, minutes: float) -> int:
    return max([1, *(number for number in range(2, count + 1) if share_minutes(minutes, number * rounds) >= WORTH_MINUTES)])


def _leave_folds(name: ConfigurationName, kept: int, folds: int, at_once: int) -> list[LeftOut]:
    if kept == folds:
        return []
    needed = math.ceil((LEAST_MINUTES + RESERVE_EACH) * math.ceil(folds / at_once))
    reason = f"a training would get less than {LEAST_MINUTES:g} minute; --minutes {needed} includes all {folds}"
    return [LeftOut(configuration=name, folds=tuple(range(kept, folds)), reason=reason)]


def _leave_configurations(names: list[ConfigurationName], joined: int, folds: int, rounds: int) -> list[LeftOut]:
    """What further configurations would take, and from which time on they are included."""
    left_out = []
    for number, name in enumerate(names[joined:], joined + 1):
        hours = number * rounds * WORTH_MINUTES / (1 - RESERVE_SHARE) / 60
        reason = (
            f"it would take another {rounds * WORTH_MINUTES:g} minutes ({WORTH_MINUTES:g} for each training); "
            f"--hours {math.ceil(hours * 10) / 10:g} includes it"
        )
        left_out.append(LeftOut(configuration=name, folds=tuple(range(folds)), reason=reason))
    return left_out
