"""Whether the numbers of an instance task's configuration can be: Mask R-CNN's against the network's, and the thresholds."""

import math
from collections.abc import Callable, Iterator

from autoseg.planning.faults import Fault, format_value
from autoseg.records.dataset import Dataset
from autoseg.records.detection import DetectionSpec, Thresholds
from autoseg.records.plan import Configuration

MOST_UPSAMPLING = 3  # doublings of a mask: eight times as fine as what it is drawn from
Limit = tuple[tuple[str, ...], Callable[[float], bool], str]
COUNTS = (
    *("pyramid_features", "anchor_samples", "proposals_per_level", "proposals", "box_samples", "box_bins", "box_features"),
    *("mask_samples", "mask_bins", "mask_features", "mask_convolutions", "detections"),
)
SHARES = ("anchor_positive", "anchor_negative", "proposal_nms", "box_positive", "box_negative")
LIMITS: tuple[Limit, ...] = (
    (COUNTS, lambda value: value >= 1, "Whole numbers from 1 up"),
    (SHARES, lambda value: 0 <= value <= 1, "An overlap from 0 to 1"),
    (("mask_upsampling",), lambda value: 0 <= value <= MOST_UPSAMPLING, f"0 to {MOST_UPSAMPLING}"),
)


def find_detection_faults(configuration: Configuration, dataset: Dataset) -> Iterator[Fault]:
    """The product fits the name and the task, and every number of it can be."""
    kind = configuration.name.partition("_")[0]
    objects = kind in ("instance", "boundary")
    for field, wanted in (("detection", kind == "instance"), ("thresholds", objects)):
        if (getattr(configuration, field) is not None) != wanted:
            allowed = f"A configuration of the name {configuration.name} {'needs' if wanted else 'has no'} {field}"
            yield Fault(field, "none" if wanted else "there", allowed, "Plan anew with --task instance." if wanted else "")
    if objects and dataset.task != "instance":
        yield Fault("name", configuration.name, "Another: the data set's task is semantic", "Plan anew with --task instance.")
    if configuration.detection is not None:
        for fault in _check_detection(configuration.detection, configuration):
            yield Fault(f"detection.{fault.field}", fault.value, fault.allowed, fault.todo)
    if configuration.thresholds is not None:
        yield from _check_thresholds(configuration.thresholds)


def _check_detection(detection: DetectionSpec, configuration: Configuration) -> Iterator[Fault]:
    yield from _check_levels(detection, len(configuration.network.strides))
    yield from _check_anchors(detection, configuration.dimension)
    for fields, holds, allowed in LIMITS:
        for field in fields:
            value = getattr(detection, field)
            if not all(math.isfinite(part) and holds(part) for part in (value if isinstance(value, tuple) else (value,))):
                yield Fault(field, format_value(value), allowed)
    for field in ("box_bins", "mask_bins"):
        value = getattr(detection, field)
        if len(value) != configuration.dimension:
            yield Fault(field, format_value(value), f"{configuration.dimension} numbers, one per axis")
    for part in ("anchor", "box"):
        low, high = getattr(detection, f"{part}_negative"), getattr(detection, f"{part}_positive")
        if low > high:
            yield Fault(f"{part}_negative", format_value(low), f"At most detection.{part}_positive, {format_value(high)}")
    if detection.mask_samples > detection.box_samples:
        allowed = f"At most detection.box_samples, {detection.box_samples}, as masks are drawn for some of them"
        yield Fault("mask_samples", str(detection.mask_samples), allowed)


def _check_levels(detection: DetectionSpec, stages: int) -> Iterator[Fault]:
    levels, text = detection.levels, format_value(detection.levels)
    if not levels or list(levels) != sorted(set(levels)) or not set(levels) <= set(range(stages)):
        yield Fault("levels", text, f"Stages of the network, 0 to {stages - 1}, each once, the finest first")


def _check_anchors(detection: DetectionSpec, dimension: int) -> Iterator[Fault]:
    anchors, text = detection.anchors, format_value(detection.anchors)
    if len(anchors) != len(detection.levels):
        yield Fault("anchors", text, f"Shapes for each of the {len(detection.levels)} levels")
    elif len({len(shapes) for shapes in anchors}) != 1 or not anchors[0]:
        yield Fault("anchors", text, "As many shapes on every level, as all share one head")
    elif any(len(shape) != dimension for shapes in anchors for shape in shapes):
        yield Fault("anchors", text, f"Shapes of {dimension} edges, one per axis")
    elif not all(math.isfinite(edge) and edge > 0 for shapes in anchors for shape in shapes for edge in shape):
        yield Fault("anchors", text, "Edges above 0, in voxels")


def _check_thresholds(thresholds: Thresholds) -> Iterator[Fault]:
    for field in ("score", "nms", "mask", "seed"):
        value = getattr(thresholds, field)
        if not 0 <= value <= 1:
            yield Fault(f"thresholds.{field}", format_value(value), "A number from 0 to 1")
    if not (math.isfinite(thresholds.smallest) and thresholds.smallest >= 0):
        yield Fault("thresholds.smallest", format_value(thresholds.smallest), "0, or a number of voxels above")
