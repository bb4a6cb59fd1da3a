"""The manifest of a folder of predicted masks."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord
from autoseg.records.choice import Rule
from autoseg.records.dataset import ClassLabel


class PredictedCase(Record, frozen=True, kw_only=True):
    """One scan: digests of its files and of its mask, or the message why there is none."""

    case: str
    scan: str
    mask: str
    scan_digest: str
    mask_digest: str
    state: Literal["done", "failed"]
    message: str = ""


class Predictions(SavedRecord, frozen=True, kw_only=True):
    """`model_digest` covers configurations, folds, weights, rules: masks of another model, or made by another choice, are made anew.

    `configurations` are those whose probabilities were averaged, `configuration` the first; `rules` were applied to the masks.
    """

    task: Literal["semantic", "instance"] = "semantic"
    model_digest: str
    folds: tuple[int, ...]
    configuration: str
    configurations: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    classes: tuple[ClassLabel, ...]
    background_value: int
    ignore_value: int | None = None
    unit: Literal["mm", "px"]
    label_pattern: str
    cases: tuple[PredictedCase, ...]
