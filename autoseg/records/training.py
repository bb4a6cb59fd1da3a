"""What a training run fixed before its first step, where it stands, and the model that it leaves."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord
from autoseg.records.dataset import Channel, ClassLabel, are_regions
from autoseg.records.detection import Thresholds
from autoseg.records.machine import DeviceName, PrecisionName
from autoseg.records.plan import Configuration

RecipeName = Literal["autoseg", "batchgenerators"]


class Origin(Record, frozen=True, kw_only=True):
    """The model that a training starts from (`--init`): its fold folder, the digest of its weights, and how much of it fitted."""

    source: str
    weights_digest: str
    copied: int
    tensors: int


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
    patience: int | None = None
    init: Origin | None = None
    recipe: RecipeName = "autoseg"
    compiled: bool = False


class Leg(Record, frozen=True, kw_only=True):
    """Steps first … last - 1 with one shape of the learning rate (training/schedule.py)."""

    kind: Literal["planned", "extension", "ending"]
    first: int
    last: int


class Rescue(Record, frozen=True, kw_only=True):
    """How a training goes on that was not finite any more: from `step`, in this precision, at `rate` times the learning rate."""

    step: int
    precision: PrecisionName
    rate: float
    cases: tuple[str, ...]


class Course(SavedRecord, frozen=True, kw_only=True):
    """What has changed since the settings were fixed: ends brought forward, extensions, a rescue.

    Written (course.json) before a change takes effect, so that a resumption repeats it at the same step.
    """

    legs: tuple[Leg, ...]
    rescue: Rescue | None = None

    @property
    def end(self) -> int:
        """The number of steps in all."""
        return self.legs[-1].last


class TrainingStatus(SavedRecord, frozen=True, kw_only=True):
    """Where a fold stands; rewritten every epoch. `skipped` names the cases of steps whose loss or gradient was not finite.

    In the end `mean_dice`, or of objects `mean_ap_cell_50`, is the mean over classes on the validation cases.
    """

    state: Literal["training", "interrupted", "validating", "finished"]
    step: int
    steps: int
    seconds: float
    loss: float | None = None
    mean_dice: float | None = None
    mean_ap_cell_50: float | None = None
    alarms: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class ModelHeader(SavedRecord, frozen=True, kw_only=True):
    """All that prediction needs beside the weights; together they are a model. `thresholds` are those chosen for objects, if any."""

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
    thresholds: Thresholds | None = None

    @property
    def regions(self) -> bool:
        return are_regions(self.classes)
