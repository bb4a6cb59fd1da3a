"""The configurations of an instance task: Mask R-CNN, and a U-Net of insides and boundaries as the control that keeps it honest."""

import math
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from autoseg.planning.budget import Fit, Task
from autoseg.planning.configuration import Common, count_needs, make_configuration
from autoseg.planning.detection import choose_thresholds, choose_zoom, explain_detection, explain_objects, explain_thresholds, zoom_spacing
from autoseg.planning.detector_fit import DetectorFit, fit_detector
from autoseg.planning.objects import Objects, compute_percentiles, pool_objects
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.plan import AugmentationSpec, Configuration, ConfigurationName, LossSpec, OptimizerSpec

DETECTORS: dict[int, ConfigurationName] = {2: "instance_2d", 3: "instance_3d"}
BOUNDARIES: dict[int, ConfigurationName] = {2: "boundary_2d", 3: "boundary_3d"}
VARIED = 3.0  # ratio of large to small objects (p95 to p5) from which images are scaled more
HEAD_LOSS = LossSpec(dice_weight=0.5, cross_entropy_weight=0.5, deep_supervision=False)  # as autoseg/training/objectives.py has it
BENT = (0.5, 1.5)  # voxels: small objects would lose their form by more
COLOUR_CHANNELS = 3  # of an image whose stain varies
CHANGES = (
    *("rotation", "scaling", "elastic", "turn", "noise", "blur", "brightness", "contrast"),
    *("low_resolution", "inverted_gamma", "gamma", "streak", "occlusion"),
)  # that augmentation makes to an image, each with its probability
DEFAULT_REASON = "objects are to be told apart, which Mask R-CNN does also where they touch or overlap"


def make_instance_configurations(
    common: Common, task: Task, fingerprint: Fingerprint, fit_unet: Callable[[Task], Fit]
) -> tuple[Configuration, ...]:
    """Both at the same spacing; `task` is that of a U-Net for the classes. Raises InputError where there are no objects."""
    dimension = common.dataset.dimension
    objects, fitted, zoom = _fit(common, task, fingerprint)
    zoomed = _zoom(task, objects.spacing)
    detector = make_configuration(DETECTORS[dimension], common, zoomed, fitted.fit, fitted.needs)
    bounded = replace(zoomed, classes=task.classes + 1, labels=task.labels + 1, smallest_object=0.0)  # small ones keep their voxels
    fit = fit_unet(bounded)
    boundary = make_configuration(BOUNDARIES[dimension], common, bounded, fit, count_needs(bounded, fit))
    return tuple(_finish(made, common, objects, zoom) for made in (_make_detector(detector, common, objects, fitted), boundary))


def _fit(common: Common, task: Task, fingerprint: Fingerprint) -> tuple[Objects, DetectorFit, str]:
    """The objects at the spacing chosen, what fits there, and why they are enlarged or not."""
    resolution = common.resolution
    objects = pool_objects(fingerprint, resolution.axes, resolution.spacing)
    factor, reason = (1.0, "none: the spacing was given") if common.spacing_given else choose_zoom(objects)
    chosen = _fit_at(task, fingerprint, common, zoom_spacing(resolution.spacing, factor))
    if factor > 1 and not chosen[1].whole:
        chosen = _fit_at(task, fingerprint, common, resolution.spacing)
        reason = f"none: {reason.partition(', ')[2].partition(';')[0]}, but a patch would not show large ones whole then"
    return *chosen, reason


def _fit_at(task: Task, fingerprint: Fingerprint, common: Common, spacing: tuple[float, ...]) -> tuple[Objects, DetectorFit]:
    axes = common.resolution.axes
    objects = pool_objects(fingerprint, axes, spacing)
    shapes = [[case.cropped_shape[axis] * case.spacing[axis] / step for axis, step in zip(axes, spacing)] for case in fingerprint.cases]
    largest = tuple(float(edge) for edge in np.max(shapes, axis=0))
    return objects, fit_detector(_zoom(task, spacing), objects, largest)


def _zoom(task: Task, spacing: tuple[float, ...]) -> Task:
    """The same data at another spacing (mm)."""
    factors = [old / new for old, new in zip(task.spacing, spacing)]
    shape = tuple(max(1.0, float(round(size * factor))) for size, factor in zip(task.median_shape, factors))
    same = spacing == task.spacing
    return task if same else replace(task, spacing=spacing, median_shape=shape, dataset_voxels=task.dataset_voxels * math.prod(factors))


def _make_detector(made: Configuration, common: Common, objects: Objects, fitted: DetectorFit) -> Configuration:
    """With the heads' numbers, and trained as Mask R-CNN is."""
    profile, detection = common.profile.detection, fitted.detection
    optimizer = OptimizerSpec(
        name=profile.optimizer,
        learning_rate=profile.learning_rate,
        weight_decay=profile.weight_decay,
        gradient_clip=profile.gradient_clip,
    )
    reasons = {
        **made.reasons,
        "network": f"{len(made.network.strides)} stages, down to the coarsest that carries heads",
        "loss": "of the head of insides and boundaries; those of boxes and masks are Mask R-CNN's",
        "optimizer": f"{profile.optimizer}, rate {profile.learning_rate:g}, of profile {common.profile.name} for Mask R-CNN",
        "memory": "about: feature maps kept for the backward pass, gradients, crops of boxes, overlaps, weights and the optimiser's copies",
        **explain_detection(detection, objects, fitted.anchors, fitted.crowd),
    }
    schedule = msgspec.structs.replace(made.schedule, warmup=profile.warmup, averaging=profile.averaging)
    return msgspec.structs.replace(made, detection=detection, loss=HEAD_LOSS, optimizer=optimizer, schedule=schedule, reasons=reasons)


def _finish(made: Configuration, common: Common, objects: Objects, zoom: str) -> Configuration:
    """What both kinds share: thresholds, augmentation, and the reasons for them."""
    thresholds = choose_thresholds(objects)
    augmentation, more = _augment(made.augmentation, objects, len(common.dataset.channels))
    share = common.profile.detection.augmentation_share
    if share != 1:
        augmentation, more = _weaken(augmentation, share), f"{more}; each change {share:g} times as often, as the images are seen few times"
    reasons = {
        **made.reasons,
        "spacing": f"{made.reasons['spacing']}; zoom: {zoom}",
        "zoom": zoom,
        "augmentation": f"{made.reasons['augmentation']}; {more}",
        **explain_thresholds(thresholds, objects),
    }
    if made.detection is None:
        reasons["network"] += f"; it answers with the background, the inside of each class and the boundary, for {explain_objects(objects)}"
    return msgspec.structs.replace(made, thresholds=thresholds, augmentation=augmentation, reasons=reasons)


def _augment(spec: AugmentationSpec, objects: Objects, channels: int) -> tuple[AugmentationSpec, str]:
    """Half of the patches on an object drawn evenly; images are also bent a little, scaled as sizes vary, and their stains mixed (6.6)."""
    spec = msgspec.structs.replace(spec, foreground_probability=0.5, object_probability=1.0)
    if len(objects.spacing) == 3:
        return spec, "not bent"
    sizes = compute_percentiles(objects.sides)
    varied = float(sizes[95.0] / sizes[5.0])
    scaling = (0.5, 2.0) if varied >= VARIED else (0.7, 1.4)
    spec = msgspec.structs.replace(spec, scaling=scaling, elastic_probability=0.2, elastic=BENT, inverted_gamma_probability=0.15)
    reason = f"scaled {scaling[0]:g} to {scaling[1]:g} times, as large objects are {varied:.2g} times as large as small ones; bent a little"
    if channels < COLOUR_CHANNELS:
        return spec, reason
    colours = (0.6, 1.5)
    spec = msgspec.structs.replace(
        spec, brightness_probability=0.3, contrast_probability=0.3, brightness=colours, contrast=colours, gamma_probability=0.3
    )
    return spec, f"{reason}; each colour's brightness and contrast by {colours[0]:g} to {colours[1]:g}, as stains vary"


def _weaken(spec: AugmentationSpec, share: float) -> AugmentationSpec:
    """Every change is made `share` times as often."""
    names = [f"{change}_probability" for change in CHANGES]
    return msgspec.structs.replace(spec, **{name: round(share * getattr(spec, name), 6) for name in names})
