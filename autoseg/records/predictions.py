"""The manifest of a folder of predicted masks."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord
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
    """`model_digest` covers configuration, folds and weights: masks of another model are made anew."""

    task: Literal["semantic", "instance"] = "semantic"
    model_digest: str
    folds: tuple[int, ...]
    configuration: str
    classes: tuple[ClassLabel, ...]
    background_value: int
    ignore_value: int | None = None
    unit: Literal["mm", "px"]
    label_pattern: str
    cases: tuple[PredictedCase, ...]
