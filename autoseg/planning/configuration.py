"""One configuration of a plan: what was fitted, what all configurations share, and a reason for every field."""

import math
from dataclasses import dataclass

import msgspec

from autoseg.errors import InputError
from autoseg.planning.budget import Fit, Task, count_training_bytes, format_shape
from autoseg.planning.cost import count_operations, count_weights
from autoseg.planning.memory import estimate_prediction_bytes
from autoseg.planning.needs import Needs
from autoseg.planning.spacing import Resolution
from autoseg.records.dataset import Dataset
from autoseg.records.machine import Machine
from autoseg.records.plan import (
    AugmentationSpec,
    Configuration,
    ConfigurationName,
    LossSpec,
    MemoryEstimate,
    Normalization,
    OptimizerSpec,
    ScheduleSpec,
)
from autoseg.records.profile import Profile

ELONGATED = 1.5  # ratio of patch edges beyond which 2D patches are turned by 15° at most
FLAT = 3.0  # ratio of patch edges beyond which 3D patches are turned within their slices only


@dataclass(frozen=True)
class Common:
    """What all configurations of a plan share; `mirror` are axes of the full dimension, `spacing_given` says whether by the user."""

    dataset: Dataset
    profile: Profile
    machine: Machine
    minutes: float
    resolution: Resolution
    normalization: tuple[Normalization, ...]
    normalization_reason: str
    mirror: tuple[tuple[int, ...], str]
    objects: tuple[float, str]
    spacing_given: bool = False


def count_needs(task: Task, fit: Fit) -> Needs:
    """What a U-Net needs as it was fitted."""
    return Needs(
        training_bytes=count_training_bytes(task, fit.network, fit.patch_size, fit.batch_size),
        prediction_bytes=estimate_prediction_bytes(fit.network, fit.patch_size, fit.median_shape, task.channels, task.classes),
        operations=count_operations(fit.network, fit.patch_size, task.channels, task.classes) * fit.batch_size * fit.accumulation,
        weights=count_weights(fit.network, task.channels, task.classes),
    )


def make_configuration(name: ConfigurationName, common: Common, task: Task, fit: Fit, needs: Needs) -> Configuration:
    """Raises InputError where it needs more memory than there is."""
    profile = common.profile
    dimension = len(fit.patch_size)
    axes, mirror_reason = common.mirror
    skipped = common.dataset.dimension - dimension
    _refuse_too_little_memory(needs.training_bytes, common.machine, profile)
    return Configuration(
        name=name,
        spacing=fit.spacing,
        median_shape=fit.median_shape,
        patch_size=fit.patch_size,
        batch_size=fit.batch_size,
        accumulation=fit.accumulation,
        steps_per_epoch=profile.steps_per_epoch,
        normalization=common.normalization,
        network=fit.network,
        batch_dice=True,
        loss=LossSpec(coarsest_head=profile.coarsest_head),
        optimizer=OptimizerSpec(
            name=profile.optimizer,
            learning_rate=profile.learning_rate,
            weight_decay=profile.weight_decay,
            gradient_clip=profile.gradient_clip,
        ),
        schedule=ScheduleSpec(
            name=profile.schedule, warmup=profile.warmup, averaging=profile.averaging, epochs=profile.epochs, minutes=common.minutes
        ),
        augmentation=_make_augmentation(dimension, fit, common),
        mirror_axes=tuple(axis - skipped for axis in axes if axis >= skipped),
        memory=MemoryEstimate(
            training_bytes=needs.training_bytes,
            prediction_bytes=needs.prediction_bytes,
            prepared_bytes=_count_prepared_bytes(common, task, fit),
        ),
        seconds_per_step=needs.operations * needs.overhead / common.machine.flops if common.machine.flops else 0.0,
        reasons=_explain(common, fit, mirror_reason),
    )


def _refuse_too_little_memory(needed: int, machine: Machine, profile: Profile) -> None:
    """Where not even the smallest plan fits. Profiles with a count of elements, as nnU-Net's, are not held to our bytes."""
    if profile.budget == "elements" or needed <= machine.memory:
        return
    raise InputError(
        f"No plan fits {machine.memory / 1e9:.3g} GB: the smallest patch at batch 1 needs {needed / 1e9:.3g} GB to train.",
        todo=f"Give more memory: --memory {math.ceil(needed / 1e9 * 10.5) / 10:g}GB",
    )


def _count_prepared_bytes(common: Common, task: Task, fit: Fit) -> int:
    """All scans at the configuration's spacing: float32 channels and an int16 label map (int32 of objects), before compression."""
    label = 4 if common.dataset.task == "instance" else 2
    slices = math.prod(common.resolution.median_shape[: common.dataset.dimension - len(fit.patch_size)])
    return int(task.cases * slices * math.prod(fit.median_shape) * (4 * task.channels + label))


def _make_augmentation(dimension: int, fit: Fit, common: Common) -> AugmentationSpec:
    """The profile's ranges, with nnU-Net's exceptions: ±180° for images (±15° where patches are elongated), flat patches turn in plane."""
    patch = fit.patch_size
    spec = msgspec.structs.replace(common.profile.augmentation, object_probability=common.objects[0])
    if dimension == 3:
        flat = max(patch) / patch[0] > FLAT
        return msgspec.structs.replace(spec, rotation=(180.0, 0.0)) if flat else spec
    elongated = max(patch) / min(patch) > ELONGATED
    return msgspec.structs.replace(spec, rotation=(15.0, 0.0) if elongated else (180.0, 0.0))


def _explain_augmentation(dimension: int, augmentation: AugmentationSpec, objects: str) -> str:
    turn, tilt = augmentation.rotation
    others = "scaling, noise, blur, brightness, contrast, gamma and low resolution vary as scanners do" + (
        f"; {objects}" if objects else ""
    )
    if dimension == 2 and turn == 180:
        return f"turned to any angle, as an image has no fixed way up; {others}"
    if tilt == 0:
        return f"turned within slices only (±{turn:g}°), as thick slices or long patches lose their content otherwise; {others}"
    return (
        f"±{turn:g}° about each axis: more than patients differ by, so that no class is learned by its angle; warnings of rotation in the "
        f"literature concern classes told apart by their side, which turns of this size do not swap; {others}"
    )


def _explain(common: Common, fit: Fit, mirror_reason: str) -> dict[str, str]:
    network, profile = fit.network, common.profile
    dimension = len(fit.patch_size)
    strides = [math.prod(stride[axis] for stride in network.strides) for axis in range(dimension)]
    deepest = format_shape(tuple(size // step for size, step in zip(fit.patch_size, strides)))
    length = f"{common.minutes:g} minutes" if common.minutes else f"{profile.epochs} epochs of {profile.steps_per_epoch} steps"
    return {
        "spacing": "; ".join(text for text in (common.resolution.reason, fit.reasons["spacing"]) if text),
        "median_shape": "half of the scans are smaller at this spacing",
        "patch_size": fit.reasons["patch_size"],
        "batch_size": fit.reasons["batch_size"],
        "steps_per_epoch": "how often the log gets a line; nothing else depends on it",
        "normalization": common.normalization_reason,
        "network": f"{len(network.strides)} stages: an axis is halved while at least 4 voxels remain (deepest map {deepest}); "
        "axes of coarser spacing wait for the others",
        "features": f"widths {', '.join(map(str, network.features))} of profile {profile.name}",
        "batch_dice": "Dice is summed over the batch, so that a patch without a class does not count as a failure",
        "loss": "Dice follows the score, cross-entropy steadies it; both at every resolution of the decoder",
        "optimizer": f"{profile.optimizer}, rate {profile.learning_rate:g}, of profile {profile.name}",
        "schedule": f"{profile.schedule} down to zero over {length}, or over what train is given",
        "augmentation": _explain_augmentation(dimension, _make_augmentation(dimension, fit, common), common.objects[1]),
        "mirror_axes": mirror_reason,
        "memory": "feature maps kept for the backward pass, their gradients, the loss over all classes, weights and the optimiser's copies",
    }
