"""A planning profile: the limits and reference values that turn a fingerprint into a plan."""

from typing import Literal

from autoseg.records.base import SavedRecord
from autoseg.records.plan import AugmentationSpec


class Profile(SavedRecord, frozen=True, kw_only=True):
    """Numbers of the planning rules; sources are cited where they are used (autoseg/planning).

    `budget` says what limits patch and batch: a GPU's memory by reference element counts, or a CPU's operations in the minutes given.
    `encoder_convolutions` are per stage, the last for all deeper ones.
    `reference_elements` and `reference_batch` are (2D, 3D) pairs at `reference_memory` bytes; `maximum_features` is a (2D, 3D) pair.
    """

    name: str
    description: str
    budget: Literal["memory", "operations"]
    orientation: Literal["LPS", "stored"] = "LPS"
    base_features: int
    maximum_features: tuple[int, int]
    encoder_convolutions: tuple[int, ...]
    decoder_convolutions: int
    reference_elements: tuple[float, float] = (85e6, 560e6)
    reference_memory: int = 8 * 10**9
    reference_batch: tuple[int, int] = (12, 2)
    minimum_batch: int = 2
    maximum_batch: int = 512
    dataset_share: float = 0.05
    steps: int = 0
    coarsest_object: int = 0
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    warmup: float
    schedule: Literal["cosine", "poly"]
    averaging: float
    epochs: int
    steps_per_epoch: int
    minutes: float = 0.0
    gradient_clip: float
    mirror: bool
    augmentation: AugmentationSpec
