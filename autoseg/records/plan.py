"""Every decision about training and prediction, with its reason."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord, digest_of
from autoseg.records.dataset import ClassLabel, Dataset, count_outputs
from autoseg.records.detection import DetectionSpec, Thresholds
from autoseg.records.machine import Machine

ConfigurationName = Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade", "instance_2d", "instance_3d", "boundary_2d", "boundary_3d"]
Product = Literal["classes", "objects", "boundaries"]
LossName = Literal["dice_ce", "weighted_ce", "topk_ce", "focal", "dice_focal", "tversky", "unified_focal", "boundary"]


class Normalization(Record, frozen=True, kw_only=True):
    """How one channel's intensities are brought to a common scale.

    `zscore`: per image, over `mask`ed voxels only where set; `ct`: clip to [low, high], then subtract mean and divide by std of the whole
    data set; `rescale`: to [0, 1] per image; `rgb`: divide by 255; `none`.
    """

    scheme: Literal["zscore", "ct", "rescale", "rgb", "none"]
    mask: bool = False
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 0.0


class NetworkSpec(Record, frozen=True, kw_only=True):
    """A U-Net in numbers: one entry per stage, `strides` at the entry of the stage (the first all ones).

    The encoder of kind `plain` has `convolutions` per stage; that of kind `residual_encoder` one convolution as its stem and then `blocks`
    per stage, each of two convolutions and a shortcut (He 2016, arXiv 1512.03385). The other of the two fields is empty. That of kind
    `resnet50` is for Mask R-CNN in 2D and for public weights, RESNET50 below: its first stage is the image, `features` there are the
    decoder's; its second has one convolution, and `blocks` of three convolutions count from the third on. `dropout` is the share of whole
    feature maps left out behind every convolution (Tompson 2015, arXiv 1411.4280).
    """

    kind: Literal["plain", "residual_encoder", "resnet50"]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    features: tuple[int, ...]
    convolutions: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    decoder_convolutions: tuple[int, ...]
    activation: Literal["leaky_relu", "relu", "prelu"] = "leaky_relu"
    dropout: float = 0.0


RESNET50 = NetworkSpec(  # sizes of the public weights (autoseg/networks/resnet.py)
    kind="resnet50",
    strides=((1, 1), *((2, 2),) * 5),
    kernel_sizes=((3, 3),) * 6,
    features=(32, 64, 256, 512, 1024, 2048),
    blocks=(1, 1, 3, 4, 6, 3),
    decoder_convolutions=(1,) * 5,
    activation="relu",
)


class LossSpec(Record, frozen=True, kw_only=True):
    """The loss, and its numbers (formulas: autoseg/training/loss_terms.py).

    `dice_weight` and `cross_entropy_weight` are for `dice_ce`, `dice_focal` (of the focal loss) and `boundary`; `class_weights` for
    `weighted_ce`, one per class with the background first, none for all 1; `topk_share` of the voxels counts in `topk_ce`;
    `tversky_alpha` weighs false positives, `tversky_beta` false negatives; `unified_lambda` is the focal part's share of `unified_focal`;
    `boundary_weight` that of mean probability times distance in voxels. With `deep_supervision` every resolution of the decoder is
    trained, each with half the weight of the next finer one; without `coarsest_head`, as in nnU-Net, the coarsest has none.
    """

    name: LossName = "dice_ce"
    dice_weight: float = 1.0
    cross_entropy_weight: float = 1.0
    deep_supervision: bool = True
    coarsest_head: bool = True
    class_weights: tuple[float, ...] = ()
    topk_share: float = 0.1
    focal_gamma: float = 2.0
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    unified_delta: float = 0.6
    unified_gamma: float = 0.5
    unified_lambda: float = 0.5
    boundary_weight: float = 0.01

    def weigh_heads(self, count: int) -> tuple[float, ...]:
        """The weights of a decoder's answers, finest first; their sum is 1."""
        trained = count if self.deep_supervision else 1
        if self.deep_supervision and not self.coarsest_head:
            trained = max(1, count - 1)
        weights = [0.5**level for level in range(trained)] + [0.0] * (count - trained)
        return tuple(weight / sum(weights) for weight in weights)


class OptimizerSpec(Record, frozen=True, kw_only=True):
    name: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    momentum: float = 0.99
    gradient_clip: float = 12.0


class ScheduleSpec(Record, frozen=True, kw_only=True):
    """The learning rate over the run, and how long a run is when nothing else is asked: `minutes` if set, else `epochs`.

    `warmup` is the share of the steps with a linearly rising rate; `averaging` the time constant of the averaged weights as a share of
    the steps (0: off).
    """

    name: Literal["cosine", "poly"]
    warmup: float
    averaging: float
    epochs: int
    minutes: float


class AugmentationSpec(Record, frozen=True, kw_only=True):
    """What is done to training patches, in this order: probabilities per sample, and ranges. `foreground_probability` of the patches

    are centred on a voxel of a class drawn evenly; of these `object_probability` on an object drawn evenly, so that small ones count as
    much as large ones. `rotation` in degrees: about the first axis (in plane) and about the other two. Blur and low resolution strike
    each channel with their `channel_probability`. `elastic` is the standard deviation of the displacement in voxels of the finest axis,
    `elastic_scale` how far its grid points lie apart; `streaks` is the strength of metal streaks in standard deviations of the image;
    `occlusion` the edge of a blanked box as a share of the patch; a `turn` is one of 90° in a plane of equal spacing.
    """

    foreground_probability: float = 0.33
    object_probability: float = 0.0
    rotation_probability: float = 0.2
    rotation: tuple[float, float] = (30.0, 30.0)
    scaling_probability: float = 0.2
    scaling: tuple[float, float] = (0.7, 1.4)
    elastic_probability: float = 0.0
    elastic: tuple[float, float] = (1.0, 3.0)
    elastic_scale: float = 16.0
    turn_probability: float = 0.0
    noise_probability: float = 0.1
    noise_std: tuple[float, float] = (0.0, 0.1)
    blur_probability: float = 0.2
    blur_channel_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    brightness_probability: float = 0.15
    brightness: tuple[float, float] = (0.75, 1.25)
    contrast_probability: float = 0.15
    contrast: tuple[float, float] = (0.75, 1.25)
    low_resolution_probability: float = 0.25
    low_resolution_channel_probability: float = 0.5
    low_resolution: tuple[float, float] = (0.5, 1.0)
    inverted_gamma_probability: float = 0.1
    gamma_probability: float = 0.3
    gamma: tuple[float, float] = (0.7, 1.5)
    streak_probability: float = 0.0
    streaks: tuple[float, float] = (0.5, 2.0)
    occlusion_probability: float = 0.0
    occlusion: tuple[float, float] = (0.1, 0.3)


class MemoryEstimate(Record, frozen=True, kw_only=True):
    """Peak bytes that training and prediction are expected to need, and those of the prepared scans on the disk, before compression."""

    training_bytes: int
    prediction_bytes: int
    prepared_bytes: int = 0


class Configuration(Record, frozen=True, kw_only=True):
    """One way to train: all its numbers. Shapes in voxels, spacing in mm, array order after the plan's `axes`; 2 entries in 2D.

    `median_shape` is the median over scans at `spacing`, so it may end in .5. A step adds up the gradients of `accumulation` batches.
    `previous` names the configuration whose masks are an input as well (second stage of a cascade). `seconds_per_step` is what the planner
    expects (0: not known). `user_set` lists the fields that the user has changed. `detection` is there where the network is a Mask R-CNN,
    `thresholds` where the product are objects (the model's own, chosen on validation images, take their place).
    """

    name: ConfigurationName
    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    accumulation: int = 1
    steps_per_epoch: int
    normalization: tuple[Normalization, ...]
    network: NetworkSpec
    batch_dice: bool
    loss: LossSpec
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    augmentation: AugmentationSpec
    mirror_axes: tuple[int, ...]
    previous: ConfigurationName | None = None
    memory: MemoryEstimate
    seconds_per_step: float = 0.0
    reasons: dict[str, str]
    user_set: tuple[str, ...] = ()
    detection: DetectionSpec | None = None
    thresholds: Thresholds | None = None

    @property
    def dimension(self) -> int:
        return len(self.patch_size)

    @property
    def product(self) -> Product:
        """What the network is trained to give: a class per voxel, objects (Mask R-CNN), or the objects' insides and boundaries."""
        if self.detection is not None:
            return "objects"
        return "boundaries" if self.thresholds is not None else "classes"


def count_network_outputs(configuration: Configuration, classes: tuple[ClassLabel, ...]) -> int:
    """Channels of a network's answer, with the background: for objects those of the box head, for boundaries one more for these."""
    match configuration.product:
        case "classes":
            return count_outputs(classes)
        case "objects":
            return len(classes) + 1
        case "boundaries":
            return len(classes) + 2


class Plan(SavedRecord, frozen=True, kw_only=True):
    """All decisions for one data set on one machine."""

    profile: str
    machine: Machine
    dataset_digest: str
    fingerprint_digest: str
    orientation: Literal["LPS", "stored"]
    axes: tuple[int, ...]
    default_configuration: ConfigurationName
    default_reason: str
    configurations: tuple[Configuration, ...]


def preparation_digest(configuration: Configuration, plan: Plan, dataset: Dataset) -> str:
    """Digest of all that decides how a case's prepared arrays look; equal digests mean the arrays can be used as they are."""
    return digest_of(
        {
            "spacing": configuration.spacing,
            "normalization": configuration.normalization,
            "axes": plan.axes,
            "orientation": plan.orientation,
            "channels": dataset.channels,
            "classes": dataset.classes,
            "label_form": dataset.label_form,
            "background": dataset.background_value,
            "ignore": dataset.ignore_value,
        }
    )
