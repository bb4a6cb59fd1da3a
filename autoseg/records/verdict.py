"""What scores mean in words: a light per class and metric, fitness by purpose, and what went wrong with its cure."""

from typing import Literal

from autoseg.records.base import Record

Colour = Literal["green", "amber", "red", "n/a"]


class Limit(Record, frozen=True, kw_only=True):
    """A mean that is at least as good as `green` is green, else at least as good as `amber` amber, else red; distances are in mm."""

    metric: str
    green: float
    amber: float


class Light(Record, frozen=True, kw_only=True):
    """The colour of one class's mean over its cases, and how many of these are green, amber and red by themselves.

    `missed` of the red cases have no distance, because mask or reference is empty there; `undefined` cases have no light at all.
    """

    class_name: str
    metric: str
    value: float | None
    colour: Colour
    green: int
    amber: int
    red: int
    missed: int = 0
    undefined: int = 0


class Fitness(Record, frozen=True, kw_only=True):
    """Whether the means of a class meet what a purpose demands; None where one of them is undefined."""

    class_name: str
    purpose: str
    demands: str
    met: bool | None


class Finding(Record, frozen=True, kw_only=True):
    """Something that the scores show: what, the numbers that show it, and what to do about it. `name` is stable, for programs."""

    name: str
    what: str
    evidence: str
    cure: str
