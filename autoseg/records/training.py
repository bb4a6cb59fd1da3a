"""What a training run fixed before its first step, where it stands, and the model that it leaves."""

from typing import Literal

from autoseg.records.base import SavedRecord
from autoseg.records.dataset import Channel, ClassLabel
from autoseg.records.machine import DeviceName, PrecisionName
from autoseg.records.plan import Configuration

RecipeName = Literal["autoseg", "batchgenerators"]


class TrainingSettings(SavedRecord, frozen=True, kw_only=True):
    """Written before step 1 and read by every resumption: the run's length and precision never change on the way.

    `recipe` says whose transforms make the plan's augmentation.
    """

    fold: int
    configuration: Configuration
    configuration_digest: str
    steps: int
    steps_per_epoch: int
    validations: int
    seed: int
    device: DeviceName
    precision: PrecisionName
    channels_last: bool
    threads: int
    seconds_per_step: float
    training_digest: str
    recipe: RecipeName = "autoseg"


class TrainingStatus(SavedRecord, frozen=True, kw_only=True):
    """Where a fold stands; rewritten every epoch."""

    state: Literal["training", "interrupted", "validating", "finished"]
    step: int
    steps: int
    seconds: float
    loss: float | None = None
    mean_dice: float | None = None


class ModelHeader(SavedRecord, frozen=True, kw_only=True):
    """All that prediction needs beside the weights; together they are a model."""

    fold: int
    configuration: Configuration
    orientation: Literal["LPS", "stored"]
    axes: tuple[int, ...]
    dimension: Literal[2, 3]
    channels: tuple[Channel, ...]
    classes: tuple[ClassLabel, ...]
    background_value: int
    ignore_value: int | None = None
    unit: Literal["mm", "px"]
    label_pattern: str
    weights_digest: str
    device: DeviceName
    precision: PrecisionName
    channels_last: bool
    steps: int
    training_cases: int
