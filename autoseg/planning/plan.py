"""The whole plan: every decision with the line that explains it."""

import math
from dataclasses import dataclass

import msgspec

from autoseg.errors import InputError
from autoseg.planning.budget import (
    BUDGETS,
    Fit,
    Task,
    measure_objects_by_class,
    search_low_resolution,
    with_dimension,
)
from autoseg.planning.configuration import Common, count_needs, make_configuration
from autoseg.planning.instances import DEFAULT_REASON, DETECTORS, make_instance_configurations
from autoseg.planning.mirroring import decide_mirroring
from autoseg.planning.normalization import decide_normalization
from autoseg.planning.scattered import choose_object_share
from autoseg.planning.spacing import Resolution, SpacingRule, decide_resolution
from autoseg.records.base import compute_digest
from autoseg.records.dataset import Dataset, count_outputs
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import (
    Configuration,
    ConfigurationName,
    Plan,
)
from autoseg.records.profile import Profile

EVERY_OBJECT = (1.0, "half of the patches are centred on an object drawn evenly, so that small ones count as much as large ones")
THINNEST_3D = 8  # slices below which a 3D network could not pool along them, and slices are treated as images
DEFAULT_MINUTES = 30.0  # that a CPU plan assumes where neither user nor profile says


@dataclass(frozen=True)
class Request:
    """What the user asked of the plan: training minutes per fold, a spacing (mm, canonical axis order), a GPU's memory (bytes)."""

    minutes: float | None = None
    spacing: tuple[float, ...] | None = None
    memory: int | None = None


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
    by_object = choose_object_share(dataset, fingerprint) if profile.evidence else (0.0, "")
    common = Common(
        dataset=dataset,
        profile=profile,
        machine=machine,
        minutes=minutes,
        resolution=resolution,
        normalization=normalization,
        normalization_reason=why,
        mirror=decide_mirroring(dataset, fingerprint, _allow_mirroring(dataset, profile), resolution.axes),
        objects=EVERY_OBJECT if dataset.task == "instance" else by_object,
        spacing_given=wanted is not None,
    )
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
    if dataset.task == "instance":
        configurations = make_instance_configurations(common, task, fingerprint, BUDGETS[profile.budget])
        default, default_reason = DETECTORS[dataset.dimension], DEFAULT_REASON
    else:
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


def _allow_mirroring(dataset: Dataset, profile: Profile) -> Profile:
    """Objects have no fixed way up, and mirrored ones are new ones also in a short training."""
    return msgspec.structs.replace(profile, mirror="evidence") if dataset.task == "instance" and profile.mirror == "none" else profile


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
    made = [_make_unet("2d", common, flat, fit(flat))]
    if common.dataset.dimension == 2 or task.median_shape[0] == 1:
        return tuple(made)
    fitted = fit(task)
    full = _make_unet("3d_fullres", common, task, fitted)
    low = search_low_resolution(task, fitted, fit) if common.profile.low_resolution_share else None
    cascades = common.profile.batch_dice == "cascades"
    full = msgspec.structs.replace(full, batch_dice=low is not None or not cascades)
    made.append(full)
    if low is not None:
        reduced = _make_unet("3d_lowres", common, task, low)
        made.append(msgspec.structs.replace(reduced, batch_dice=not cascades))
        made.append(_make_cascade(full))
    return tuple(made)


def _make_unet(name: ConfigurationName, common: Common, task: Task, fit: Fit) -> Configuration:
    return make_configuration(name, common, task, fit, count_needs(task, fit))


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
