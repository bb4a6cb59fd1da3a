"""Patch, batch and widths for what there is: a GPU's memory, or a CPU's operations in the minutes given."""

from dataclasses import dataclass, replace

import numpy as np

from autoseg.planning.cost import count_operations, count_reference_elements, estimate_training_bytes
from autoseg.planning.topology import Topology, decide_topology, make_initial_patch, shrink_patch
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import NetworkSpec
from autoseg.records.profile import Profile

COARSENING = 1.03  # factor per step of the search for a coarser spacing (nnU-Net's, for its low-resolution stage)
COARSEST = 4.0  # a scan is never coarsened beyond this factor
MEMORY_SHARE = 0.95  # of the memory given that a plan may use


@dataclass(frozen=True)
class Task:
    """What a configuration is made for: the data's full resolution (`median_shape` in voxels, `spacing` in mm) and the means."""

    spacing: tuple[float, ...]
    median_shape: tuple[int, ...]
    channels: int
    classes: int
    dataset_voxels: float
    smallest_object: float
    profile: Profile
    machine: Machine
    minutes: float


@dataclass(frozen=True)
class Fit:
    """What fits: spacing, median shape at it, patch, batch and network, and the reasons by field."""

    spacing: tuple[float, ...]
    median_shape: tuple[int, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    network: NetworkSpec
    reasons: dict[str, str]


def measure_smallest_object(fingerprint: Fingerprint) -> float:
    """The median object's longest edge (mm) of the class whose objects are smallest; infinity where there are no objects."""
    extents: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        for label in case.classes:
            if label.objects:
                extents.setdefault(label.name, []).append(label.object_extents[2])
    return min((float(np.median(values)) for values in extents.values()), default=float("inf"))


def build_network_spec(topology: Topology, profile: Profile) -> NetworkSpec:
    """The profile's U-Net on a topology: widths double from stage to stage up to the profile's limit."""
    stages = len(topology.strides)
    limit = profile.maximum_features[len(topology.patch_size) - 2]
    return NetworkSpec(
        kind="plain",
        strides=topology.strides,
        kernel_sizes=topology.kernel_sizes,
        features=tuple(min(profile.base_features * 2**stage, limit) for stage in range(stages)),
        convolutions=tuple(profile.encoder_convolutions[min(stage, len(profile.encoder_convolutions) - 1)] for stage in range(stages)),
        decoder_convolutions=(profile.decoder_convolutions,) * (stages - 1),
    )


def format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def fit_to_memory(task: Task) -> Fit:
    """nnU-Net's rule: shrink the patch until a reference batch's feature maps fit the GPU, then fill what is left with batch."""
    profile, which = task.profile, len(task.spacing) - 2
    budget = profile.reference_elements[which] * task.machine.memory / profile.reference_memory
    allowed = budget / profile.minimum_batch * profile.reference_batch[which]
    topology = decide_topology(task.spacing, make_initial_patch(task.spacing, task.median_shape))
    network = build_network_spec(topology, profile)
    while (elements := count_reference_elements(network, topology.patch_size, task.classes)) > allowed and _can_shrink(topology):
        topology = shrink_patch(task.spacing, topology.patch_size, task.median_shape)
        network = build_network_spec(topology, profile)
    batch = round(budget / elements * profile.reference_batch[which])
    share = round(task.dataset_voxels * profile.dataset_share / np.prod(topology.patch_size))
    batch_size = max(min(batch, share), profile.minimum_batch)
    limit = "the memory" if batch <= share else f"{profile.dataset_share:.0%} of all voxels, as few scans need variety more than speed"
    reasons = {
        "spacing": "",
        "patch_size": f"{_describe_cover(topology.patch_size, task.median_shape)}, within {task.machine.memory / 1e9:.3g} GB at batch "
        f"{profile.minimum_batch}",
        "batch_size": f"limited by {limit}",
    }
    return Fit(task.spacing, task.median_shape, topology.patch_size, batch_size, network, reasons)


def fit_to_operations(task: Task) -> Fit:
    """For a CPU: the largest patch whose steps are fast enough, so that the minutes given hold the profile's number of steps.

    Where a scan does not fit one patch and its objects are large, the spacing is coarsened first: seeing an organ whole is worth more
    than its last pixel, and the mask is written on the scan's own grid all the same.
    """
    profile = task.profile
    allowed = task.machine.flops * task.minutes * 60 / profile.steps
    spacing, shape, coarsening = _coarsen(task, allowed)
    topology = _round_down(spacing, make_initial_patch(spacing, shape))
    rounded = topology.patch_size
    network = build_network_spec(topology, profile)
    while not _is_affordable(task, topology, network, allowed) and _can_shrink(topology):
        topology = shrink_patch(spacing, topology.patch_size, shape)
        network = build_network_spec(topology, profile)
    operations = count_operations(network, topology.patch_size, task.channels, task.classes)
    batch_size = int(min(max(allowed / operations, profile.minimum_batch), profile.maximum_batch))
    cover = _describe_cover(topology.patch_size, shape, rounded)
    steps = task.machine.flops * task.minutes * 60 / (operations * batch_size)
    billions = operations * batch_size / 1e9
    reasons = {
        "spacing": coarsening,
        "patch_size": f"{cover}, so that {task.minutes:g} minutes on {task.machine.cores} cores hold about {steps:.0f} steps",
        "batch_size": f"{billions:.3g} billion operations a step, of {task.machine.flops / 1e9:.0f} billion a second",
    }
    return Fit(spacing, shape, topology.patch_size, batch_size, network, reasons)


def _round_down(spacing: tuple[float, ...], patch: tuple[int, ...]) -> Topology:
    """The topology of a patch rounded down to its divisors where that leaves the network the same: padding costs, and teaches nothing."""
    topology = decide_topology(spacing, patch)
    smaller = tuple(max(size // divisor, 1) * divisor for size, divisor in zip(patch, topology.divisors))
    trial = decide_topology(spacing, smaller)
    return trial if trial.strides == topology.strides else topology


def _is_affordable(task: Task, topology: Topology, network: NetworkSpec, allowed: float) -> bool:
    batch = task.profile.minimum_batch
    operations = batch * count_operations(network, topology.patch_size, task.channels, task.classes)
    needed = estimate_training_bytes(network, topology.patch_size, batch, task.channels, task.classes)
    return operations <= allowed and needed <= MEMORY_SHARE * task.machine.memory


def _coarsen(task: Task, allowed: float) -> tuple[tuple[float, ...], tuple[int, ...], str]:
    """The finest spacing at which the whole median scan is affordable, as far as the smallest class keeps enough voxels."""
    spacing, shape = np.array(task.spacing), task.median_shape
    while True:
        topology = decide_topology(tuple(spacing), shape)
        if _is_affordable(task, topology, build_network_spec(topology, task.profile), allowed):
            break
        finer = spacing * 2 < spacing.max()
        trial = np.where(finer if finer.any() else True, spacing * COARSENING, spacing)
        factor = (trial / np.array(task.spacing)).max()
        if factor > COARSEST or task.smallest_object < task.profile.coarsest_object * trial.max():
            break
        spacing = trial
        shape = tuple(max(1, round(size * old / new)) for size, old, new in zip(task.median_shape, task.spacing, spacing))
    factor = float((spacing / np.array(task.spacing)).max())
    if factor == 1:
        return task.spacing, task.median_shape, ""
    objects = f"objects of {task.smallest_object:.3g} keep at least {task.profile.coarsest_object} voxels along their length"
    return tuple(float(step) for step in spacing), shape, f"coarsened {factor:.2g} times, so that a patch shows the scan whole; {objects}"


def _can_shrink(topology: Topology) -> bool:
    return any(size > divisor for size, divisor in zip(topology.patch_size, topology.divisors)) and max(topology.patch_size) > 8


def _describe_cover(patch: tuple[int, ...], median_shape: tuple[int, ...], rounded: tuple[int, ...] = ()) -> str:
    """In words, how much of a median scan a patch shows; `rounded` is the patch if only the network's divisors had made it smaller."""
    share = float(np.prod([min(1.0, edge / size) for edge, size in zip(patch, median_shape)]))
    if share == 1:
        return f"covers the median scan {format_shape(median_shape)}"
    if patch == rounded:
        return f"the median scan {format_shape(median_shape)}, rounded down to what the network can halve"
    return f"the largest that fits; covers {share:.0%} of the median scan {format_shape(median_shape)}"


def with_dimension(task: Task, dimension: int) -> Task:
    """The same task for the last `dimension` axes: a 2D network on the slices of volumes."""
    kept = slice(len(task.spacing) - dimension, None)
    return replace(task, spacing=task.spacing[kept], median_shape=task.median_shape[kept])


BUDGETS = {"memory": fit_to_memory, "operations": fit_to_operations}
