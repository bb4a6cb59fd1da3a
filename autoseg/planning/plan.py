"""The whole plan: every decision with the line that explains it."""

import math
from dataclasses import dataclass

import msgspec

from autoseg.errors import InputError
from autoseg.planning.budget import (
    BUDGETS,
    Fit,
    Task,
    count_training_bytes,
    format_shape,
    measure_objects_by_class,
    search_low_resolution,
    with_dimension,
)
from autoseg.planning.cost import count_operations
from autoseg.planning.memory import estimate_prediction_bytes
from autoseg.planning.mirroring import decide_mirroring
from autoseg.planning.normalization import decide_normalization
from autoseg.planning.scattered import choose_object_share
from autoseg.planning.spacing import Resolution, SpacingRule, decide_resolution
from autoseg.records.base import compute_digest
from autoseg.records.dataset import Dataset, count_outputs
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
FLAT = 3.0  # ratio of patch edges beyond which 3D patches are turned within their slices only
THINNEST_3D = 8  # slices below which a 3D network could not pool along them, and slices are treated as images
DEFAULT_MINUTES = 30.0  # that a CPU plan assumes where neither user nor profile says


@dataclass(frozen=True)
class Request:
    """What the user asked of the plan: training minutes per fold, a spacing (mm, canonical axis order), a GPU's memory (bytes)."""

    minutes: float | None = None
    spacing: tuple[float, ...] | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Common:
    """What all configurations of a plan share; `mirror` are axes of the full dimension."""

    dataset: Dataset
    profile: Profile
    machine: Machine
    minutes: float
    resolution: Resolution
    normalization: tuple[Normalization, ...]
    normalization_reason: str
    mirror: tuple[tuple[int, ...], str]
    objects: tuple[float, str]


def make_plan(dataset: Dataset, fingerprint: Fingerprint, profile: Profile, machine: Machine, request: Request = Request()) -> Plan:
    """Decides everything from what was measured; pure: the same records give the same plan.

    Raises InputError for a spacing of the wrong length or sign, and where no plan fits the memory.
    """
    wanted = request.spacing
    if wanted is not None and (len(wanted) != dataset.dimension or not all(0 < step < float("inf") for step in wanted)):
        raise InputError(f"--spacing needs {dataset.dimension} positive numbers, in the order {'z,y,x'[-2 * dataset.dimension + 1 :]}.")
    _refuse_other_fingerprint(dataset, fingerprint)
    objects = measure_objects_by_class(fingerprint)
    rule = SpacingRule(profile.evidence, min(objects, default=float("inf")))
    resolution = decide_resolution(fingerprint, wanted, rule)
    normalization, why = decide_normalization(dataset, fingerprint, profile)
    minutes = request.minutes or profile.minutes
    mirror = decide_mirroring(dataset, fingerprint, profile, resolution.axes)
    by_object = choose_object_share(dataset, fingerprint) if profile.evidence else (0.0, "")
    common = Common(dataset, profile, machine, minutes, resolution, normalization, why, mirror, by_object)
    task = Task(
        spacing=resolution.spacing,
        median_shape=resolution.median_shape,
        channels=len(dataset.channels),
        classes=count_outputs(dataset.classes),
        labels=len(dataset.classes) + 1 + (dataset.ignore_value is not None),
        cases=len(dataset.cases),
        dataset_voxels=math.prod(resolution.median_shape) * len(dataset.cases),
        smallest_object=min(objects, default=0.0),
        largest_object=max(objects, default=float("inf")),
        profile=profile,
        machine=machine,
        minutes=minutes or DEFAULT_MINUTES,
        memory=request.memory or 0,
    )
    configurations = _make_configurations(common, task)
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


def _refuse_other_fingerprint(dataset: Dataset, fingerprint: Fingerprint) -> None:
    """A fingerprint of other cases, channels or dimension than the data set's; one by nnU-Net has no names to compare."""
    wrong = next((case for case in fingerprint.cases if len(case.spacing) != dataset.dimension), None)
    if wrong is not None:
        raise InputError(f"The fingerprint's case {wrong.case} is {len(wrong.spacing)}D, the data set {dataset.dimension}D.")
    if fingerprint.summary is not None:
        return
    measured, known = {case.case for case in fingerprint.cases}, {case.id for case in dataset.cases}
    if measured != known:
        name = min(measured ^ known)
        where = "the fingerprint, but not in the data set" if name in measured else "the data set, but not in the fingerprint"
        raise InputError(f"The fingerprint is that of another data set: case {name} is in {where}.", todo="Plan the scans anew.")


def _make_configurations(common: Common, task: Task) -> tuple[Configuration, ...]:
    """2D, 3D at full resolution, and where a patch shows too little of a scan, 3D at low resolution and the cascade of both."""
    fit = BUDGETS[common.profile.budget]
    flat = with_dimension(task, 2)
    made = [_make_configuration("2d", common, flat, fit(flat))]
    if common.dataset.dimension == 2 or task.median_shape[0] == 1:
        return tuple(made)
    fitted = fit(task)
    full = _make_configuration("3d_fullres", common, task, fitted)
    low = search_low_resolution(task, fitted, fit) if common.profile.low_resolution_share else None
    cascades = common.profile.batch_dice == "cascades"
    full = msgspec.structs.replace(full, batch_dice=low is not None or not cascades)
    made.append(full)
    if low is not None:
        reduced = _make_configuration("3d_lowres", common, task, low)
        made.append(msgspec.structs.replace(reduced, batch_dice=not cascades))
        made.append(_make_cascade(full))
    return tuple(made)


def _make_cascade(full: Configuration) -> Configuration:
    """The second stage: as at full resolution, with the masks of the low-resolution stage as further channels."""
    reason = "refines the masks of 3d_lowres at full resolution; planned, but this version cannot train it yet"
    reasons = {**full.reasons, "previous": reason}
    return msgspec.structs.replace(full, name="3d_cascade", previous="3d_lowres", reasons=reasons)


def _choose_default(dataset: Dataset, resolution: Resolution) -> tuple[ConfigurationName, str]:
    if dataset.dimension == 2:
        return "2d", "the scans are images"
    slices = resolution.median_shape[0]
    if slices < THINNEST_3D:
        return "2d", f"a median scan has {slices:g} slices, too few for a 3D network to pool"
    return "3d_fullres", f"a median scan has {slices:g} slices, and context from neighbouring slices helps"


def _make_configuration(name: ConfigurationName, common: Common, task: Task, fit: Fit) -> Configuration:
    profile = common.profile
    dimension = len(fit.patch_size)
    axes, mirror_reason = common.mirror
    skipped = common.dataset.dimension - dimension
    operations = count_operations(fit.network, fit.patch_size, task.channels, task.classes) * fit.batch_size * fit.accumulation
    training = count_training_bytes(task, fit.network, fit.patch_size, fit.batch_size)
    _refuse_too_little_memory(training, common.machine, profile)
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
            training_bytes=training,
            prediction_bytes=estimate_prediction_bytes(fit.network, fit.patch_size, fit.median_shape, task.channels, task.classes),
            prepared_bytes=_count_prepared_bytes(common, task, fit),
        ),
        seconds_per_step=operations / common.machine.flops if common.machine.flops else 0.0,
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
    """All scans at the configuration's spacing: float32 channels and an int16 label map, before compression."""
    slices = math.prod(common.resolution.median_shape[: common.dataset.dimension - len(fit.patch_size)])
    return int(task.cases * slices * math.prod(fit.median_shape) * (4 * task.channels + 2))


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
