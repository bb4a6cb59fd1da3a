"""Patch, batch and levels of a Mask R-CNN for what there is: bytes, and on a CPU the operations that the minutes given hold."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoseg.planning.anchors import AnchorChoice, choose_anchors
from autoseg.planning.budget import ACCUMULATED, MEMORY_SHARE, PRECISIONS, Fit, Task, format_shape, repeat_last
from autoseg.planning.detection import Crowd, choose_levels, list_strides, make_detection
from autoseg.planning.detection_cost import OVERHEAD, Detector
from autoseg.planning.needs import Load, Needs, estimate_detector_needs
from autoseg.planning.objects import Objects, compute_percentiles
from autoseg.planning.topology import decide_topology
from autoseg.records.detection import DetectionSpec
from autoseg.records.plan import NetworkSpec
from autoseg.records.profile import DetectionProfile

LARGE_OBJECTS, USUAL_OBJECTS = 2.0, 4.0  # edges of large (p99) and of median objects that a patch shows, so that tiles show them whole
SLOWER = 2.0  # factor on a step's operations that is spent rather than to cut large objects
SMALLEST_EDGE = 32  # voxels that a patch keeps

ChooseAnchors = Callable[[tuple[tuple[int, ...], ...]], AnchorChoice]


@dataclass(frozen=True)
class DetectorFit:
    """What fits, and what it was made from; `whole` says whether a patch is as large as the objects want it."""

    fit: Fit
    detection: DetectionSpec
    anchors: AnchorChoice
    crowd: Crowd
    needs: Needs
    whole: bool


@dataclass(frozen=True)
class _Trial:
    """A patch (voxels) with all that follows from it; `divisors` are the steps by which it may shrink."""

    patch: tuple[int, ...]
    divisors: tuple[int, ...]
    network: NetworkSpec
    detection: DetectionSpec
    anchors: AnchorChoice
    crowd: Crowd


def fit_detector(task: Task, objects: Objects, largest: tuple[float, ...]) -> DetectorFit:
    """The patch, then the batch; `largest` is the shape of the largest scans in voxels, per axis, beyond which no patch need go.

    The patch begins as a cube in mm of the profile's size, or as the objects need it, and shrinks down to their need, then the batch, then
    the patch further: objects are then put together from tiles.
    """
    needed = _count_needed(objects, largest)
    target = tuple(max(a, b) for a, b in zip(_make_initial(task), needed))
    choose = functools.cache(lambda steps: choose_anchors(objects.sizes, list(steps)))
    batch = task.profile.detection.minimum_batch[len(target) - 2]
    trial = _make_trial(task, objects, target, choose)
    while not _fits(task, trial, batch) and (smaller := _shrink(trial, needed)):
        trial = _make_trial(task, objects, smaller, choose)
    while batch > 1 and not _has_memory(task, _estimate(task, trial, batch)):
        batch -= 1
    floor = (float(SMALLEST_EDGE),) * len(target)
    while not _fits(task, trial, batch, SLOWER) and (smaller := _shrink(trial, floor)):
        trial = _make_trial(task, objects, smaller, choose)
    most = task.profile.detection.maximum_batch[len(target) - 2]
    while batch < most and _fits(task, trial, batch + 1):
        batch += 1
    whole = all(edge >= need for edge, need in zip(trial.patch, needed))
    needs = _estimate(task, trial, batch)
    reasons = {
        "spacing": "",
        "patch_size": _explain_patch(task, objects, whole, needs),
        "batch_size": _explain_batch(task, needs, batch, most),
    }
    fit = Fit(task.spacing, task.median_shape, trial.patch, batch, trial.network, reasons, _accumulate(batch))
    return DetectorFit(fit, trial.detection, trial.anchors, trial.crowd, needs, whole)


def _count_needed(objects: Objects, largest: tuple[float, ...]) -> tuple[float, ...]:
    """Voxels per axis that show large objects whole once in half-overlapping tiles, within the largest scans."""
    sizes = compute_percentiles(objects.sizes)
    wanted = np.maximum(LARGE_OBJECTS * sizes[99.0], USUAL_OBJECTS * sizes[50.0])
    return tuple(float(edge) for edge in np.minimum(wanted, largest))


def _make_initial(task: Task) -> tuple[float, ...]:
    """A cube in mm of the profile's voxels, clipped to the median scan."""
    volume = task.profile.detection.patch_voxels[len(task.spacing) - 2]
    edge = (volume * math.prod(task.spacing)) ** (1 / len(task.spacing))
    return tuple(min(float(round(edge / step)), size) for step, size in zip(task.spacing, task.median_shape))


def _make_trial(task: Task, objects: Objects, wanted: tuple[float, ...], choose: ChooseAnchors) -> _Trial:
    """A patch of at least the voxels wanted, its network as deep as the heads need it."""
    profile, which = task.profile.detection, len(wanted) - 2
    topology = decide_topology(task.spacing, wanted)
    levels = choose_levels(objects, topology.strides)
    stages = levels[-1] + 1
    steps = list_strides(topology.strides[:stages])
    patch = tuple(math.ceil(edge / divisor) * divisor for edge, divisor in zip(wanted, steps[-1]))
    network = NetworkSpec(
        kind="residual_encoder",
        strides=topology.strides[:stages],
        kernel_sizes=topology.kernel_sizes[:stages],
        features=tuple(_count_features(profile, which, stage, levels[0]) for stage in range(stages)),
        blocks=repeat_last(profile.blocks, stages),
        decoder_convolutions=(profile.decoder_convolutions,) * (stages - 1),
    )
    anchors = choose(tuple(steps[level] for level in levels))
    detection, crowd = make_detection(objects, patch, levels, anchors, profile)
    return _Trial(patch, steps[-1], network, detection, anchors, crowd)


def _count_features(profile: DetectionProfile, which: int, stage: int, finest: int) -> int:
    """Of a stage: most voxels lie in the stages finer than the `finest` level, and only the boundary head looks there."""
    features = profile.fine_features[which] if stage < finest else profile.base_features[which]
    return min(features * 2**stage, profile.maximum_features[which])


def _shrink(trial: _Trial, floor: tuple[float, ...]) -> tuple[float, ...] | None:
    """One divisor less along the axis that is longest for its floor; None where none may shrink."""
    able = [axis for axis, edge in enumerate(trial.patch) if edge - trial.divisors[axis] >= max(floor[axis], 1)]
    if not able:
        return None
    chosen = max(able, key=lambda axis: trial.patch[axis] / floor[axis])
    return tuple(float(edge - trial.divisors[axis] * (axis == chosen)) for axis, edge in enumerate(trial.patch))


def _accumulate(batch: int) -> int:
    return ACCUMULATED if batch == 1 else 1


def _estimate(task: Task, trial: _Trial, batch: int) -> Needs:
    detector = Detector(trial.network, trial.detection, trial.patch, task.channels, task.classes)
    precision = PRECISIONS[task.machine.device]
    load = Load(batch, _accumulate(batch), task.profile.detection.optimizer, precision, task.median_shape)
    return estimate_detector_needs(detector, load)


def _has_memory(task: Task, needs: Needs) -> bool:
    return needs.training_bytes <= MEMORY_SHARE * task.machine.memory


def _fits(task: Task, trial: _Trial, batch: int, slower: float = 1.0) -> bool:
    """Whether a step's bytes fit, and its time lets the minutes given hold the profile's steps, `slower` times fewer."""
    needs, steps = _estimate(task, trial, batch), task.profile.detection.steps
    fast = not (steps and task.machine.flops) or _count_steps(task, needs) * slower >= steps
    return fast and _has_memory(task, needs)


def _count_steps(task: Task, needs: Needs) -> float:
    """That the minutes given hold."""
    return task.machine.flops * task.minutes * 60 / (needs.operations * OVERHEAD)


def _explain_patch(task: Task, objects: Objects, whole: bool, needs: Needs) -> str:
    sizes = compute_percentiles(objects.sizes)
    large = format_shape(tuple(round(float(edge)) for edge in sizes[99.0]))
    reason = f"twice as large as all but one object in a hundred ({large}), or the scan, so that half-overlapping tiles show them whole"
    if not whole:
        reason = f"as large as fits; objects larger than half of it are put together from tiles (one in a hundred is larger than {large})"
    if task.profile.detection.steps and task.machine.flops:
        cores = f"{task.minutes:g} minutes on {task.machine.cores} cores"
        return f"{reason}; {cores} hold about {_count_steps(task, needs):.0f} steps"
    return f"{reason}; a step needs about {needs.training_bytes / 1e9:.3g} of {task.machine.memory / 1e9:.3g} GB"


def _explain_batch(task: Task, needs: Needs, batch: int, most: int) -> str:
    if batch == 1:
        return f"only one patch fits; the gradients of {ACCUMULATED} are added up before every update"
    if task.profile.detection.steps and task.machine.flops:
        rate = f"{task.machine.flops / 1e9:.0f} billion a second ({task.machine.flops_source})"
        return f"{needs.operations / 1e9:.3g} billion operations a step, of {rate}, and a third more time for boxes"
    return f"more than {batch} patches at once teach no more than more steps do" if batch == most else "limited by the memory"
