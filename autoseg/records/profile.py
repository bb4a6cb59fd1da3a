"""A planning profile: the limits and reference values that turn a fingerprint into a plan."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord
from autoseg.records.plan import AugmentationSpec


class DetectionProfile(Record, frozen=True, kw_only=True):
    """What a profile gives Mask R-CNN (planning/detection.py); pairs are (2D, 3D). Its encoder is of kind `residual_encoder`.

    `fine_features` are those of the stages finer than the finest level of the detection, which serve the boundary head alone.
    `patch_voxels` are those of the patch that is begun with, a cube in mm. `candidates` are the proposals per object of a crowded tile and
    level that go into NMS, `fewest_candidates` of them at least. `box_samples` is the most RoIs per patch that train the box head. `steps`
    is how many the minutes given should hold at least, on a CPU. `augmentation_share` is a factor on the probabilities of all changes to
    images: a training of few passes learns more from images as they are.
    """

    base_features: tuple[int, int] = (32, 32)
    fine_features: tuple[int, int] = (32, 32)
    maximum_features: tuple[int, int] = (512, 320)
    blocks: tuple[int, ...] = (1, 2)
    decoder_convolutions: int = 1
    pyramid_features: tuple[int, int] = (128, 64)
    box_features: tuple[int, int] = (1024, 512)
    mask_features: tuple[int, int] = (128, 64)
    mask_convolutions: tuple[int, int] = (4, 3)
    box_samples: tuple[int, int] = (512, 128)
    candidates: int = 8
    fewest_candidates: int = 1000
    patch_voxels: tuple[int, int] = (512**2, 128**3)
    minimum_batch: tuple[int, int] = (4, 2)
    maximum_batch: tuple[int, int] = (16, 4)
    steps: int = 0
    augmentation_share: float = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    gradient_clip: float = 12.0
    warmup: float = 0.02
    averaging: float = 0.02


class Profile(SavedRecord, frozen=True, kw_only=True):
    """Numbers of the planning rules; sources are cited where they are used (autoseg/planning).

    `budget` says what limits patch and batch: `elements`, nnU-Net's count of feature-map elements against a reference GPU; `memory`, the
    bytes of a training step (planning/memory.py); `operations`, what a CPU computes in the minutes given.
    `encoder_convolutions` (kind `plain`) or `encoder_blocks` (kind `residual_encoder`) are per stage, the last for all deeper ones.
    `reference_elements` and `reference_batch` are (2D, 3D) pairs at `reference_memory` bytes; `maximum_features` is a (2D, 3D) pair;
    `fitted_batch` is the batch (2D, 3D) at which a patch has to fit. `low_resolution_share`: a patch that shows less of a median scan asks
    for a low-resolution stage (0: never). `batch_dice` sums over the batch before Dice is computed, in `cascades` only where there is a
    low-resolution stage. `coarsest_head`: whether the decoder's coarsest answer is trained too. `evidence` lets intensities and positions
    speak beside the names of channels and classes. `detection` is for instance tasks.
    """

    name: str
    description: str
    budget: Literal["elements", "memory", "operations"]
    orientation: Literal["LPS", "stored"] = "LPS"
    network: Literal["plain", "residual_encoder"] = "plain"
    base_features: int
    maximum_features: tuple[int, int]
    encoder_convolutions: tuple[int, ...] = ()
    encoder_blocks: tuple[int, ...] = ()
    decoder_convolutions: int
    reference_elements: tuple[float, float] = (85e6, 560e6)
    reference_memory: int = 8 * 10**9
    reference_batch: tuple[int, int] = (12, 2)
    fitted_batch: tuple[int, int] = (2, 2)
    minimum_batch: int = 2
    maximum_batch: int = 0
    dataset_share: float = 0.05
    low_resolution_share: float = 0.25
    batch_dice: Literal["always", "cascades"] = "always"
    coarsest_head: bool = True
    evidence: bool = True
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
    mirror: Literal["all", "evidence", "none"]
    augmentation: AugmentationSpec
    detection: DetectionProfile = DetectionProfile()
