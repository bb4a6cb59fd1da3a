"""What a whole run is going to do, and where it stands."""

from typing import Literal

import msgspec

from autoseg.records.base import Record, SavedRecord
from autoseg.records.machine import PrecisionName
from autoseg.records.plan import ConfigurationName


class Training(Record, frozen=True, kw_only=True):
    """One fold of one configuration."""

    configuration: ConfigurationName
    fold: int


class LeftOut(Record, frozen=True, kw_only=True):
    """Folds of a configuration that are not trained, and why."""

    configuration: ConfigurationName
    folds: tuple[int, ...]
    reason: str


class Agenda(SavedRecord, frozen=True, kw_only=True):
    """`agenda.json`: the trainings of `autoseg run`, the most valuable first.

    Written before the first of them and read by every resumption, so that an interrupted run ends as one left alone. Each training gets
    `minutes` of wall clock, or `steps`; neither: the plan's schedule. `hours` is what was given for everything. `asked` holds the flags
    that were typed: a repetition may leave them out, but not change them.
    """

    trainings: tuple[Training, ...]
    left_out: tuple[LeftOut, ...] = ()
    hours: float | None = None
    minutes: float | None = None
    steps: int | None = None
    precision: PrecisionName | Literal["auto"] = "auto"
    seed: int = 0
    asked: dict[str, str] = msgspec.field(default_factory=dict)


FoldStateName = Literal["waiting", "starting", "training", "interrupted", "validating", "finished"]
SelectionState = Literal["not done", "done", "older than its models"]


class FoldState(Record, frozen=True, kw_only=True):
    """Where the training of a fold stands. `score` is the mean over classes on its validation cases; `minutes_left` are those up to its

    last step, None where nothing says how long a step takes; `holder` names the living process that works on it.
    """

    configuration: ConfigurationName
    fold: int
    state: FoldStateName
    step: int = 0
    steps: int | None = None
    score: float | None = None
    minutes_left: float | None = None
    holder: str | None = None
    alarms: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class RunStatus(Record, frozen=True, kw_only=True):
    """What is done in a run, what is going on and what is to come: `agenda` is None where no `autoseg run` has made one.

    `folds` are those of the agenda and all that were begun; without an agenda also the other folds of the default configuration.
    `minutes_left` are those of training that the agenda still holds, None where unknown; validations and selection come on top.
    """

    run: str
    cases: int
    metric: Literal["dice", "ap_cell_50"]
    agenda: Agenda | None
    folds: tuple[FoldState, ...]
    minutes_left: float | None
    selection: SelectionState
    next: str
