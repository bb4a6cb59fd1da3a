"""Two sets of masks of the same cases, compared."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord
from autoseg.records.dataset import TaskName
from autoseg.records.scores import Interval

Judgement = Literal["first", "second", "noise", "few cases"]


class CaseDifference(Record, frozen=True, kw_only=True):
    """One case in both; `difference` is second - first."""

    case: str
    first: float
    second: float
    difference: float


class PairedDifference(Record, frozen=True, kw_only=True):
    """One metric of one class over the cases where both have it; the interval is that of the mean of second - first over cases.

    `p` is of the Wilcoxon signed-rank test, `p_holm` the same corrected for the number of classes (Holm 1979). `one_sided` counts the
    cases, left out, where only one of both is defined. `judgement` names the better one where the difference is more than noise. `worst`
    and `best` are the cases in which second loses and gains most.
    """

    class_name: str
    metric: str
    first: float | None
    second: float | None
    difference: Interval
    p: float | None
    p_holm: float | None
    one_sided: int
    judgement: Judgement
    worst: tuple[CaseDifference, ...] = ()
    best: tuple[CaseDifference, ...] = ()


class Comparison(SavedRecord, frozen=True, kw_only=True):
    """`comparison.json`: where both come from, the differences by class and metric, and the cases that only one of them has."""

    task: TaskName
    first: str
    second: str
    differences: tuple[PairedDifference, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
