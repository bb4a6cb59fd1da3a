"""The whole plan: every decision with the line that explains it."""

import re
from dataclasses import dataclass

import msgspec
import numpy as np

from autoseg.errors import InputError
from autoseg.planning.budget import BUDGETS, Fit, Task, format_shape, measure_smallest_object, with_dimension
from autoseg.planning.cost import estimate_prediction_bytes, estimate_training_bytes
from autoseg.planning.normalization import decide_normalization
from autoseg.planning.spacing import Resolution, decide_resolution
from autoseg.records.base import compute_digest
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import (
    AugmentationSpec,
    Configuration,
    ConfigurationName,
    LossSpec,
    MemoryEstimate,
    Normalization,
    OptimizerSpec,
    Plan,
    ScheduleSpec,
)
from autoseg.records.profile import Profile

ELONGATED = 1.5  # ratio of patch edges beyond which 2D patches are turned by 15° at most
THINNEST_3D = 8  # slices below which a 3D network could not pool along them, and slices are treated as images
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # LeftKidney is two words
LATERAL = re.compile(r"(?i)(?<![a-z])(left|right|links|rechts|gauche|droite?|[lr](?!\d))(?![a-z])")  # but L1 is a vertebra


@dataclass(frozen=True)
class Request:
    """What the user asked of the plan: training minutes per fold, and a spacing (mm, canonical axis order)."""

    minutes: float | None = None
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Common:
    """What all configurations of a plan share."""

    dataset: Dataset
    profile: Profile
    machine: Machine
    minutes: float
    resolution: Resolution
    normalization: tuple[Normalization, ...]
    normalization_reason: str
    mirror: tuple[bool, str]


def make_plan(dataset: Dataset, fingerprint: Fingerprint, profile: Profile, machine: Machine, request: Request = Request()) -> Plan:
    """Decides everything from what was measured; pure: the same records give the same plan.

    Raises InputError for a spacing of the wrong length or sign.
    """
    wanted = request.spacing
    if wanted is not None and (len(wanted) != dataset.dimension or not all(0 < step < float("inf") for step in wanted)):
        raise InputError(f"--spacing needs {dataset.dimension} positive numbers, in the order {'z,y,x'[-2 * dataset.dimension + 1 :]}.")
    resolution = decide_resolution(fingerprint, request.spacing)
    normalization, why = decide_normalization(dataset, fingerprint)
    minutes = request.minutes or profile.minutes
    common = Common(dataset, profile, machine, minutes, resolution, normalization, why, _decide_mirroring(dataset, profile))
    task = Task(
        spacing=resolution.spacing,
        median_shape=resolution.median_shape,
        channels=len(dataset.channels),
        classes=len(dataset.classes) + 1,
        dataset_voxels=float(np.prod(resolution.median_shape)) * len(dataset.cases),
        smallest_object=measure_smallest_object(fingerprint),
        profile=profile,
        machine=machine,
        minutes=minutes or 30,
    )
    configurations = tuple(_make_configuration(name, common, task) for name in _list_configurations(dataset, resolution))
    default, default_reason = _choose_default(dataset, resolution)
    return Plan(
        profile=profile.name,
        machine=machine,
        dataset_digest=compute_digest(dataset),
        fingerprint_digest=compute_digest(fingerprint),
        orientation=profile.orientation,
        axes=resolution.axes,
        default_configuration=default,
        default_reason=default_reason,
        configurations=configurations,
    )


def _list_configurations(dataset: Dataset, resolution: Resolution) -> tuple[ConfigurationName, ...]:
    if dataset.dimension == 2 or resolution.median_shape[0] == 1:
        return ("2d",)
    return ("2d", "3d_fullres")


def _choose_default(dataset: Dataset, resolution: Resolution) -> tuple[ConfigurationName, str]:
    if dataset.dimension == 2:
        return "2d", "the scans are images"
    slices = resolution.median_shape[0]
    if slices < THINNEST_3D:
        return "2d", f"a median scan has {slices} slices, too few for a 3D network to pool"
    return "3d_fullres", f"a median scan has {slices} slices, and context from neighbouring slices helps"


def _decide_mirroring(dataset: Dataset, profile: Profile) -> tuple[bool, str]:
    lateral = [label.name for label in dataset.classes if LATERAL.search(CAMEL.sub(" ", label.name).replace("_", " "))]
    if lateral:
        return False, f"off: class {lateral[0]} names a side, and a mirrored left is a right"
    if not profile.mirror:
        return False, "off: in a short training the time is better spent on scans as they are"
    return True, "all axes: no class names a side"


def _make_configuration(name: ConfigurationName, common: Common, task: Task) -> Configuration:
    profile = common.profile
    dimension = 2 if name == "2d" else 3
    task = with_dimension(task, dimension)
    fit: Fit = BUDGETS[profile.budget](task)
    training = estimate_training_bytes(fit.network, fit.patch_size, fit.batch_size, task.channels, task.classes)
    prediction = estimate_prediction_bytes(fit.network, fit.patch_size, fit.median_shape, task.channels, task.classes)
    mirror, mirror_reason = common.mirror
    return Configuration(
        name=name,
        spacing=fit.spacing,
        median_shape=fit.median_shape,
        patch_size=fit.patch_size,
        batch_size=fit.batch_size,
        steps_per_epoch=profile.steps_per_epoch,
        normalization=common.normalization,
        network=fit.network,
        batch_dice=True,
        loss=LossSpec(),
        optimizer=OptimizerSpec(
            name=profile.optimizer,
            learning_rate=profile.learning_rate,
            weight_decay=profile.weight_decay,
            gradient_clip=profile.gradient_clip,
        ),
        schedule=ScheduleSpec(
            name=profile.schedule, warmup=profile.warmup, averaging=profile.averaging, epochs=profile.epochs, minutes=common.minutes
        ),
        augmentation=_make_augmentation(dimension, fit, profile),
        mirror_axes=tuple(range(dimension)) if mirror else (),
        memory=MemoryEstimate(training_bytes=training, prediction_bytes=prediction),
        reasons=_explain(common, fit, mirror_reason),
    )


def _make_augmentation(dimension: int, fit: Fit, profile: Profile) -> AugmentationSpec:
    """The profile's ranges; an image may lie at any angle (±180°), but ±15° where patches are elongated (nnU-Net's ranges for 2D)."""
    if dimension == 3:
        return profile.augmentation
    elongated = max(fit.patch_size) / min(fit.patch_size) > ELONGATED
    return msgspec.structs.replace(profile.augmentation, rotation=(15.0, 0.0) if elongated else (180.0, 0.0))


def _explain(common: Common, fit: Fit, mirror_reason: str) -> dict[str, str]:
    network, profile = fit.network, common.profile
    deepest = format_shape(tuple(size // int(np.prod([s[a] for s in network.strides])) for a, size in enumerate(fit.patch_size)))
    length = f"{common.minutes:g} minutes" if common.minutes else f"{profile.epochs} epochs of {profile.steps_per_epoch} steps"
    return {
        "spacing": "; ".join(text for text in (common.resolution.reason, fit.reasons["spacing"]) if text),
        "patch_size": fit.reasons["patch_size"],
        "batch_size": fit.reasons["batch_size"],
        "normalization": common.normalization_reason,
        "network": f"{len(network.strides)} stages: an axis is halved while at least 4 voxels remain (deepest map {deepest}); "
        "axes of coarser spacing wait for the others",
        "features": f"widths {', '.join(map(str, network.features))} of profile {profile.name}",
        "loss": "Dice follows the score, cross-entropy steadies it; both at every resolution of the decoder",
        "optimizer": f"{profile.optimizer}, rate {profile.learning_rate:g}, of profile {profile.name}",
        "schedule": f"{profile.schedule} down to zero over {length}, or over what train is given",
        "augmentation": "rotation, scaling, noise, blur, brightness, contrast, gamma and low resolution as scanners vary",
        "mirror_axes": mirror_reason,
    }
