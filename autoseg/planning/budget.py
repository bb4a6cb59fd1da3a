"""Patch, batch and widths for what there is: a GPU's memory, or a CPU's operations in the minutes given."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from autoseg.planning.cost import count_operations, count_reference_elements
from autoseg.planning.memory import Workload, estimate_training
from autoseg.planning.topology import PADDING, Topology, decide_topology, make_initial_patch, round_to_scan, shrink_patch
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import DeviceName, Machine, PrecisionName
from autoseg.records.plan import LossSpec, NetworkSpec
from autoseg.records.profile import Profile

COARSENING = 1.03  # factor per step of the search for a coarser spacing (nnU-Net's, for its low-resolution stage)
COARSEST = 4.0  # a scan is never coarsened beyond this factor
PRECISIONS: dict[DeviceName, PrecisionName] = {"cpu": "fp32", "cuda": "bf16", "mps": "fp32"}  # that a plan counts with
MEMORY_SHARE = 0.95  # of the memory given that a plan may use
WELL_USED = 0.80  # of the memory given that a plan uses where a larger patch would show more of a scan
SMALLEST_PATCH = 32  # voxels per axis that a patch keeps, rather than a batch of more than one, where memory is short
TRIED_BATCHES = 4  # batches, from the smallest on, for which a patch is made in search of one that uses the memory well
ACCUMULATED = 2  # batches whose gradients are added up where only one patch fits


@dataclass(frozen=True)
class Task:
    """What a configuration is made for: the data's full resolution (`median_shape` in voxels, `spacing` in mm) and the means.

    `classes` counts the network's answers (the background too, but beside regions), `labels` background, classes and an ignore label;
    `largest_object` and `smallest_object` are the median longest edges (mm) of the class of largest and of smallest objects (infinite and
    0 where no object was measured). `memory` is what the user gave (bytes), 0 where nothing was said.
    """

    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    channels: int
    classes: int
    labels: int
    cases: int
    dataset_voxels: float
    smallest_object: float
    largest_object: float
    profile: Profile
    machine: Machine
    minutes: float
    memory: int = 0


@dataclass(frozen=True)
class Fit:
    """What fits: spacing, median shape at it, patch, batch and network, and the reasons by field."""

    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    network: NetworkSpec
    reasons: dict[str, str]
    accumulation: int = 1

    @property
    def coverage(self) -> float:
        """Voxels of the patch per voxel of the median scan."""
        return math.prod(self.patch_size) / math.prod(self.median_shape)


def measure_objects_by_class(fingerprint: Fingerprint) -> list[float]:
    """The median object's longest edge (mm) of every class that has objects."""
    extents: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        for label in case.classes:
            if label.objects:
                extents.setdefault(label.name, []).append(label.object_extents[2])
    return [float(np.median(values)) for values in extents.values()]


def build_network_spec(topology: Topology, profile: Profile) -> NetworkSpec:
    """The profile's U-Net on a topology: widths double from stage to stage up to the profile's limit."""
    stages = len(topology.strides)
    limit = profile.maximum_features[len(topology.patch_size) - 2]
    plain = profile.network == "plain"
    return NetworkSpec(
        kind=profile.network,
        strides=topology.strides,
        kernel_sizes=topology.kernel_sizes,
        features=tuple(min(profile.base_features * 2**stage, limit) for stage in range(stages)),
        convolutions=repeat_last(profile.encoder_convolutions, stages) if plain else (),
        blocks=() if plain else repeat_last(profile.encoder_blocks, stages),
        decoder_convolutions=(profile.decoder_convolutions,) * (stages - 1),
    )


def repeat_last(values: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(values[min(index, len(values) - 1)] for index in range(count))


def format_shape(shape: tuple[float, ...]) -> str:
    return "x".join(f"{size:g}" for size in shape)


def fit_to_elements(task: Task) -> Fit:
    """nnU-Net's rule: shrink the patch until a reference batch's feature maps fit the GPU, then fill what is left with batch."""
    profile, which = task.profile, len(task.spacing) - 2
    given = task.memory or profile.reference_memory
    budget = profile.reference_elements[which] * given / profile.reference_memory
    allowed = budget / profile.fitted_batch[which] * profile.reference_batch[which]
    topology = decide_topology(task.spacing, make_initial_patch(task.spacing, task.median_shape))
    network = build_network_spec(topology, profile)
    while (elements := count_reference_elements(network, topology.patch_size, task.labels)) > allowed and _can_shrink(topology):
        topology = shrink_patch(task.spacing, topology, task.median_shape)
        network = build_network_spec(topology, profile)
    batch = round(budget / elements * profile.reference_batch[which])
    share = round(task.dataset_voxels * profile.dataset_share / math.prod(topology.patch_size))
    batch_size = max(min(batch, share), profile.minimum_batch)
    reasons = {
        "spacing": "",
        "patch_size": f"{_describe_cover(topology.patch_size, task.median_shape)}, within {given / 1e9:.3g} GB as nnU-Net counts",
        "batch_size": f"limited by {_name_limit(batch, share, profile)}",
    }
    return Fit(task.spacing, task.median_shape, topology.patch_size, batch_size, network, reasons)


def _name_limit(batch: int, share: int, profile: Profile) -> str:
    if batch <= share:
        return "the memory"
    return f"{profile.dataset_share:.0%} of all voxels, as few scans need variety more than speed"


def fit_to_memory(task: Task) -> Fit:
    """The largest patch whose training step fits the bytes given, then as many patches at once as fit and help.

    A patch is enlarged in steps of its divisors, so that one at the smallest batch may leave much memory unused; then a patch for a larger
    batch is tried. Where not even two small patches fit, one does, and gradients are added up over two steps.
    """
    profile, limit = task.profile, int(MEMORY_SHARE * task.machine.memory)
    whole = round_to_scan(task.spacing, make_initial_patch(task.spacing, task.median_shape)).patch_size
    tried: list[tuple[int, Topology, int]] = []
    for batch in range(profile.minimum_batch, profile.minimum_batch + TRIED_BATCHES):
        topology, fitted = _fit_patch(task, batch, limit)
        tried.append((_count_bytes(task, topology, fitted), topology, fitted))
        if tried[-1][0] >= WELL_USED * task.machine.memory or fitted < batch or topology.patch_size == whole:
            break
    used, topology, batch = max(tried, key=lambda entry: entry[0])
    patch = topology.patch_size
    share = max(round(task.dataset_voxels * profile.dataset_share / math.prod(patch)), profile.minimum_batch)
    most = min(profile.maximum_batch or share, share)
    while 1 < batch < most and (larger := _count_bytes(task, topology, batch + 1)) <= limit:
        batch, used = batch + 1, larger
    reasons = {
        "spacing": "",
        "patch_size": f"{_describe_cover(patch, task.median_shape, whole)}; a step needs {used / 1e9:.3g} of "
        f"{task.machine.memory / 1e9:.3g} GB at batch {batch}",
        "batch_size": _explain_batch(task, batch, share, used),
    }
    accumulation = ACCUMULATED if batch == 1 else 1
    return Fit(task.spacing, task.median_shape, patch, batch, build_network_spec(topology, profile), reasons, accumulation)


def _fit_patch(task: Task, batch: int, limit: int) -> tuple[Topology, int]:
    """The largest patch at this batch, or at batch 1 where the patch would get too small for two."""
    topology = round_to_scan(task.spacing, make_initial_patch(task.spacing, task.median_shape))
    while _count_bytes(task, topology, batch) > limit and _can_shrink(topology):
        if _is_small(task, topology) and _count_bytes(task, topology, 1) <= limit:
            batch = 1
            break
        topology = shrink_patch(task.spacing, topology, task.median_shape)
    return _grow(task, topology, batch, limit), batch


def count_training_bytes(task: Task, network: NetworkSpec, patch: tuple[int, ...], batch: int) -> int:
    """Peak bytes of a training step on the task's machine, in the precision that it trains in."""
    device = task.machine.device
    work = Workload(
        network,
        patch,
        batch,
        task.channels,
        task.classes,
        optimizer=task.profile.optimizer,
        precision=PRECISIONS[device],
        device=device,
        accumulation=ACCUMULATED if batch == 1 else 1,
        loss=LossSpec(coarsest_head=task.profile.coarsest_head),
    )
    return estimate_training(work).total


def _count_bytes(task: Task, topology: Topology, batch: int) -> int:
    return count_training_bytes(task, build_network_spec(topology, task.profile), topology.patch_size, batch)


def _is_small(task: Task, topology: Topology) -> bool:
    """Whether a patch has no voxel to give away for a second one in the batch."""
    return all(
        edge <= max(min(size, SMALLEST_PATCH), step) for edge, size, step in zip(topology.patch_size, task.median_shape, topology.divisors)
    )


def _grow(task: Task, topology: Topology, batch: int, limit: int) -> Topology:
    """The patch enlarged axis by axis, those that show least of their scan first, while a step still fits."""
    while True:
        candidates = sorted(range(len(task.spacing)), key=lambda axis: topology.patch_size[axis] / task.median_shape[axis])
        for axis in candidates:
            larger = [edge + (topology.divisors[axis] if index == axis else 0) for index, edge in enumerate(topology.patch_size)]
            trial = decide_topology(task.spacing, larger)
            fits = larger[axis] <= task.median_shape[axis] * (1 + PADDING) and _count_bytes(task, trial, batch) <= limit
            if fits and trial.patch_size == tuple(larger):
                topology = trial
                break
        else:
            return topology


def _explain_batch(task: Task, batch: int, share: int, used: int) -> str:
    profile, unused = task.profile, 1 - used / task.machine.memory
    if batch == 1:
        return f"only one patch fits; the gradients of {ACCUMULATED} are added up before every update"
    if batch == profile.maximum_batch:
        reason = f"more than {batch} patches at once teach no more than more steps do"
    elif batch >= share:
        reason = f"limited by {profile.dataset_share:.0%} of all voxels, as few scans need variety more than speed"
    else:
        reason = "limited by the memory"
    return f"{reason}; {unused:.0%} of the memory is left unused" if unused > 1 - WELL_USED else reason


def fit_to_operations(task: Task) -> Fit:
    """For a CPU: the largest patch whose steps are fast enough, so that the minutes given hold the profile's number of steps.

    Where a scan does not fit one patch and its objects are large, the spacing is coarsened first: seeing an organ whole is worth more
    than its last pixel, and the mask is written on the scan's own grid all the same.
    """
    profile = task.profile
    allowed = task.machine.flops * task.minutes * 60 / profile.steps
    spacing, shape, coarsening = _coarsen(task, allowed)
    topology = round_to_scan(spacing, make_initial_patch(spacing, shape))
    rounded = topology.patch_size
    network = build_network_spec(topology, profile)
    while not _is_affordable(task, topology, network, allowed) and _can_shrink(topology):
        topology = shrink_patch(spacing, topology, shape)
        network = build_network_spec(topology, profile)
    operations = count_operations(network, topology.patch_size, task.channels, task.classes)
    batch_size = int(min(max(allowed / operations, profile.minimum_batch), profile.maximum_batch))
    cover = _describe_cover(topology.patch_size, shape, rounded)
    steps = task.machine.flops * task.minutes * 60 / (operations * batch_size)
    billions = operations * batch_size / 1e9
    reasons = {
        "spacing": coarsening,
        "patch_size": f"{cover}, so that {task.minutes:g} minutes on {task.machine.cores} cores hold about {steps:.0f} steps",
        "batch_size": f"{billions:.3g} billion operations a step, of {task.machine.flops / 1e9:.0f} billion a second "
        f"({task.machine.flops_source})",
    }
    return Fit(spacing, shape, topology.patch_size, batch_size, network, reasons)


def _is_affordable(task: Task, topology: Topology, network: NetworkSpec, allowed: float) -> bool:
    batch = task.profile.minimum_batch
    operations = batch * count_operations(network, topology.patch_size, task.channels, task.classes)
    needed = count_training_bytes(task, network, topology.patch_size, batch)
    return operations <= allowed and needed <= MEMORY_SHARE * task.machine.memory


def coarsen_spacing(spacing: tuple[float, ...]) -> tuple[float, ...]:
    """One step coarser: the axes more than twice as fine as the coarsest, or all where there are none (nnU-Net's low-resolution search)."""
    finer = [max(spacing) / step > 2 for step in spacing]
    return tuple(step * COARSENING if own or not any(finer) else step for step, own in zip(spacing, finer))


def _coarsen(task: Task, allowed: float) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """The finest spacing at which the whole median scan is affordable, as far as the smallest class keeps enough voxels."""
    spacing, shape = task.spacing, task.median_shape
    while True:
        topology = decide_topology(spacing, shape)
        if _is_affordable(task, topology, build_network_spec(topology, task.profile), allowed):
            break
        trial = coarsen_spacing(spacing)
        factor = max(new / old for new, old in zip(trial, task.spacing))
        if factor > COARSEST or task.smallest_object < task.profile.coarsest_object * max(trial):
            break
        spacing = trial
        shape = tuple(max(1.0, round(size * old / new)) for size, old, new in zip(task.median_shape, task.spacing, spacing))
    factor = max(new / old for new, old in zip(spacing, task.spacing))
    if factor == 1:
        return task.spacing, task.median_shape, ""
    objects = f"objects of {task.smallest_object:.3g} keep at least {task.profile.coarsest_object} voxels along their length"
    return spacing, shape, f"coarsened {factor:.2g} times, so that a patch shows the scan whole; {objects}"


def search_low_resolution(task: Task, full: Fit, fit: Callable[[Task], Fit]) -> Fit | None:
    """The finest spacing at which a patch shows enough of a scan, or None where full resolution shows it already or is hardly finer.

    nnU-Net's search: 3 % coarser each time until the patch holds a quarter of the median scan; dropped where that saves less than half
    of the voxels. With objects known (profile.evidence) there is none either where the largest fit into a patch.
    """
    profile = task.profile
    if full.coverage >= profile.low_resolution_share or (profile.evidence and _holds_objects(task, full)):
        return None
    spacing, found = task.spacing, full
    while True:
        spacing = coarsen_spacing(spacing)
        exact = [old / new * size for old, new, size in zip(task.spacing, spacing, task.median_shape)]
        rounded = tuple(max(1.0, float(round(size))) for size in exact)
        found = fit(replace(task, spacing=spacing, median_shape=rounded, dataset_voxels=math.prod(exact) * task.cases))
        if math.prod(found.patch_size) / math.prod(exact) >= profile.low_resolution_share:
            break
    if math.prod(task.median_shape) / math.prod(exact) < 2:
        return None
    coarser = max(new / old for new, old in zip(spacing, task.spacing))
    reason = f"{coarser:.2g} times coarser than the scans, so that a patch shows {found.coverage:.0%} of one instead of {full.coverage:.0%}"
    return replace(found, reasons={**found.reasons, "spacing": reason})


def _holds_objects(task: Task, fit: Fit) -> bool:
    return all(
        edge >= size or edge * step >= task.largest_object for edge, size, step in zip(fit.patch_size, fit.median_shape, fit.spacing)
    )


def _can_shrink(topology: Topology) -> bool:
    return any(size > divisor for size, divisor in zip(topology.patch_size, topology.divisors)) and max(topology.patch_size) > 8


def _describe_cover(patch: tuple[int, ...], median_shape: tuple[float, ...], rounded: tuple[int, ...] = ()) -> str:
    """In words, how much of a median scan a patch shows; `rounded` is the patch if only the network's divisors had made it smaller."""
    share = math.prod(min(1.0, edge / size) for edge, size in zip(patch, median_shape))
    if share == 1:
        return f"covers the median scan {format_shape(median_shape)}"
    if patch == rounded:
        return f"the median scan {format_shape(median_shape)}, rounded down to what the network can halve"
    return f"the largest that fits; covers {share:.0%} of the median scan {format_shape(median_shape)}"


def with_dimension(task: Task, dimension: int) -> Task:
    """The same task for the last `dimension` axes: a 2D network on the slices of volumes."""
    kept = slice(len(task.spacing) - dimension, None)
    return replace(task, spacing=task.spacing[kept], median_shape=task.median_shape[kept])


BUDGETS = {"elements": fit_to_elements, "memory": fit_to_memory, "operations": fit_to_operations}
