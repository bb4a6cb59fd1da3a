"""What a run predicts with, and the evidence for it."""

from typing import Literal

import msgspec

from autoseg.records.base import Record, SavedRecord
from autoseg.records.detection import Thresholds

RuleKind = Literal["largest_component", "fill_holes", "minimum_volume"]


class Rule(Record, frozen=True, kw_only=True):
    """One step of post-processing, of one class or, where `class_name` is empty, of all classes as one.

    `volume` is what `minimum_volume` keeps at least, in mm³ (mm² in 2D; voxels where there is no physical unit).
    """

    kind: RuleKind
    class_name: str = ""
    volume: float = 0.0


class Trial(Record, frozen=True, kw_only=True):
    """Something that was tried: its mean score, how much better it is than what it was compared with, and the standard error of that.

    `difference` (to `versus`) and `error` are over the `cases` in which one of both has a score; None for the first, which is compared
    with nothing. `kept` is what the choice consists of.
    """

    what: str
    versus: str = ""
    mean: float | None
    difference: float | None = None
    error: float | None = None
    cases: int
    kept: bool


class Choice(SavedRecord, frozen=True, kw_only=True):
    """`choice.json`: one configuration, or two whose probabilities are averaged, their folds, and the rules applied to their masks.

    `thresholds` are those of objects, by configuration. `weights_digests` (configuration → one per fold) tells models that were trained
    anew since. `notes` say what was left out, and how much the choice is worth.
    """

    metric: Literal["dice", "ap_cell_50"]
    configurations: tuple[str, ...]
    folds: tuple[int, ...]
    rules: tuple[Rule, ...] = ()
    thresholds: dict[str, Thresholds] = msgspec.field(default_factory=dict)
    weights_digests: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    cases: int
    trials: tuple[Trial, ...] = ()
    notes: tuple[str, ...] = ()
