"""Whether a plan can be trained as it stands: every field against all others, before the first step."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter

from autoseg import __version__
from autoseg.errors import InputError
from autoseg.planning.needs import estimate_needs
from autoseg.records.dataset import Dataset, count_outputs
from autoseg.records.plan import RESNET50, AugmentationSpec, Configuration, LossSpec, NetworkSpec, Plan

TIGHT = 0.95  # share of the memory beyond which an estimate leaves no room for what else runs on the device
SHAPES = ("spacing", "median_shape", "patch_size")  # written 4x128x128, where other rows of numbers are 32,64,128
KIND_FIELDS = {"plain": "convolutions", "residual_encoder": "blocks", "resnet50": "blocks"}  # of NetworkSpec: the one that its kind uses
WITHOUT_REGIONS = ("weighted_ce",)  # losses whose formula needs classes that exclude each other
SMALLER = "A smaller patch_size or batch_size, or fewer network.features."

Rule = tuple[tuple[str, ...], Callable[[float], bool], str]
LIMITS: tuple[Rule, ...] = (
    (("batch_size", "accumulation", "steps_per_epoch", "schedule.epochs"), lambda value: value >= 1, "A whole number from 1 up"),
    (
        (
            *(f"augmentation.{name}" for name in AugmentationSpec.__struct_fields__ if name.endswith("_probability")),
            "schedule.warmup",
            "schedule.averaging",
            "loss.unified_delta",
            "loss.unified_lambda",
        ),
        lambda value: 0 <= value <= 1,
        "A share from 0 to 1",
    ),
    (
        ("optimizer.learning_rate", "optimizer.gradient_clip", "augmentation.elastic_scale"),
        lambda value: value > 0,
        "A number above 0",
    ),
    (
        (
            *(f"loss.{name}" for name in ("dice_weight", "cross_entropy_weight", "boundary_weight", "focal_gamma")),
            *(f"loss.{name}" for name in ("tversky_alpha", "tversky_beta")),
            "optimizer.weight_decay",
            "schedule.minutes",
            "seconds_per_step",
        ),
        lambda value: value >= 0,
        "0, or a number above",
    ),
    (("optimizer.momentum", "loss.unified_gamma"), lambda value: 0 <= value < 1, "A number from 0 to below 1"),
    (("network.dropout",), lambda value: 0 <= value < 1, "A share from 0 to below 1: of 1, no feature map would be left"),
    (("loss.topk_share",), lambda value: 0 < value <= 1, "A share above 0 and up to 1"),
)
RANGES: dict[str, Rule] = {  # of AugmentationSpec, lowest and highest
    "factor": (("scaling", "brightness", "contrast", "gamma"), lambda value: value > 0, "above 0"),
    "zoom": (("low_resolution", "occlusion"), lambda value: 0 < value <= 1, "above 0 and up to 1"),
    "amount": (("noise_std", "blur_sigma", "elastic", "streaks"), lambda value: value >= 0, "from 0 up"),
}


@dataclass(frozen=True)
class Fault:
    """One field that cannot be: its dotted name, its value as text, what is allowed, and what else may be done."""

    field: str
    value: str
    allowed: str
    todo: str = ""


def check_plan(plan: Plan, dataset: Dataset) -> None:
    """Holds every field against all others and against the data set. Raises InputError that names field, value and what is allowed."""
    fault = next(_find_faults(plan, dataset), None)
    if fault is not None:
        raise InputError(f"The plan's {fault.field} cannot be {fault.value}.", f"{fault.allowed}.", todo=fault.todo)


def is_sound(configuration: Configuration, plan: Plan, dataset: Dataset) -> bool:
    """Whether a configuration of the plan passes check_plan."""
    return next(_find_configuration_faults(configuration, plan, dataset), None) is None


def describe_tight_memory(plan: Plan, dataset: Dataset) -> list[str]:
    """One line per configuration whose training would fill nearly all memory; the plan passes check_plan."""
    lines, memory = [], plan.machine.memory
    for configuration in plan.configurations:
        needed = estimate_needs(configuration, dataset, plan.machine).training_bytes
        if memory and needed > TIGHT * memory:
            share = f"{needed / 1e9:.2f} of {memory / 1e9:.2f} GB ({needed / memory:.0%})"
            lines.append(f"{configuration.name}: training needs about {share} of {plan.machine.name}; it may run out of memory.")
    return lines


def format_value(value: object, field: str = "") -> str:
    """A value as --set takes it.

    >>> format_value((4, 128, 128), "patch_size"), format_value(((1, 1), (2, 2)), "network.strides"), format_value((0.7, 1.4))
    ('4x128x128', '1x1,2x2', '0.7,1.4')
    """
    match value:
        case None | () | []:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case tuple() | list():
            return ("x" if field in SHAPES else ",").join(format_value(part, SHAPES[0]) for part in value)
    return str(value)


def _find_faults(plan: Plan, dataset: Dataset) -> Iterator[Fault]:
    """All faults, in an order in which a rule may rely on those before it: whoever goes on after the first gets nonsense."""
    names = [configuration.name for configuration in plan.configurations]
    if sorted(plan.axes) != list(range(dataset.dimension)):
        yield Fault("axes", format_value(plan.axes), f"Each of 0 … {dataset.dimension - 1} once, as the scans are {dataset.dimension}D")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        yield Fault("configurations", ", ".join(names), f"Each name once; {twice[0]} is there twice")
    if plan.default_configuration not in names:
        yield Fault("default_configuration", plan.default_configuration, f"One of this plan's configurations: {', '.join(names)}")
    for configuration in plan.configurations:
        for fault in _find_configuration_faults(configuration, plan, dataset):
            yield replace(fault, field=f"configurations.{configuration.name}.{fault.field}")


def _find_configuration_faults(configuration: Configuration, plan: Plan, dataset: Dataset) -> Iterator[Fault]:
    yield from _check_lengths(configuration, dataset)
    if configuration.network.kind == "resnet50" and configuration.name != "instance_2d":
        yield Fault("network.kind", "resnet50", "plain or residual_encoder; a resnet50 is the encoder of instance_2d alone")
    yield from _check_network(configuration.network)
    yield from _check_numbers(configuration)
    yield from find_loss_faults(configuration.loss, count_outputs(dataset.classes), dataset.regions)
    yield from _check_rows(configuration)
    yield from _check_ranges(configuration.augmentation)
    yield from _check_normalization(configuration)
    yield from _check_patch(configuration)
    yield from _check_previous(configuration, plan)
    yield from _check_memory(configuration, plan, dataset)


def _check_lengths(configuration: Configuration, dataset: Dataset) -> Iterator[Fault]:
    """One entry per axis, channel or stage."""
    dimension = 2 if "2d" in configuration.name else 3
    if dimension > dataset.dimension:
        yield Fault("name", configuration.name, f"2d, as the scans are {dataset.dimension}D")
    stages = len(configuration.network.strides)
    if not stages:
        yield Fault("network.strides", "none", "One tuple per stage, such as 1x1x1,2x2x2")
    used = KIND_FIELDS[configuration.network.kind]
    other, unused = next((kind, field) for kind, field in KIND_FIELDS.items() if field != used)
    expected = [(field, dimension, "axis") for field in SHAPES]
    expected += [("normalization", len(dataset.channels), "channel")]
    expected += [(f"network.{field}", stages, "stage") for field in ("kernel_sizes", "features", used)]
    expected += [("network.decoder_convolutions", stages - 1, "stage but the deepest"), (f"network.{unused}", 0, f"stage of kind {other}")]
    for field, count, what in expected:
        value = attrgetter(field)(configuration)
        if len(value) != count:
            entries = "1 entry" if count == 1 else f"{count} entries"
            none = f"No entries: this network has no {what}"
            yield Fault(field, _format_field(value, field), f"{entries}, one per {what}" if count else none)
    for field in ("network.strides", "network.kernel_sizes"):
        value = attrgetter(field)(configuration)
        if any(len(part) != dimension for part in value):
            yield Fault(field, format_value(value), f"{dimension} numbers in every stage, one per axis")


def _format_field(value: tuple, field: str) -> str:
    return ", ".join(part.scheme for part in value) or "none" if field == "normalization" else format_value(value, field)


def _check_network(network: NetworkSpec) -> Iterator[Fault]:
    strides, kernels = format_value(network.strides), format_value(network.kernel_sizes)
    if network.kind == "resnet50":
        sizes = ("strides", "features", "blocks")  # without the first stage, which is the image
        for field in (name for name in sizes if getattr(network, name)[1:] != getattr(RESNET50, name)[1:]):
            yield Fault(f"network.{field}", format_value(getattr(network, field)), f"{format_value(getattr(RESNET50, field))} for resnet50")
    if any(step != 1 for step in network.strides[0]):
        yield Fault("network.strides", strides, f"The first stage keeps the size: {'x'.join('1' for _ in network.strides[0])}")
    if any(step < 1 for stride in network.strides for step in stride):
        yield Fault("network.strides", strides, "Whole numbers from 1 up")
    if any(edge < 1 or edge % 2 == 0 for kernel in network.kernel_sizes for edge in kernel):
        yield Fault("network.kernel_sizes", kernels, "Odd numbers (1, 3, 5, …), as a kernel has a voxel in its middle")
    for field in ("features", KIND_FIELDS[network.kind], "decoder_convolutions"):
        value = getattr(network, field)
        if any(count < 1 for count in value):
            yield Fault(f"network.{field}", format_value(value), "Whole numbers from 1 up")


def _check_numbers(configuration: Configuration) -> Iterator[Fault]:
    for fields, holds, allowed in LIMITS:
        for field in fields:
            value = attrgetter(field)(configuration)
            if not (math.isfinite(value) and holds(value)):
                yield Fault(field, format_value(value), allowed)
    optimizer = configuration.optimizer
    if optimizer.name == "sgd" and not optimizer.momentum:
        yield Fault("optimizer.momentum", "0", "A number above 0: Nesterov's momentum, which sgd uses, looks ahead by it")


def find_loss_faults(loss: LossSpec, classes: int, regions: bool = False) -> Iterator[Fault]:
    """What a loss cannot be; `classes` count the background, `regions` may overlap."""
    if loss.dice_weight + loss.cross_entropy_weight == 0:
        yield Fault("loss.dice_weight", "0", "A number above 0, as loss.cross_entropy_weight is 0 too")
    if loss.name == "tversky" and loss.tversky_alpha + loss.tversky_beta == 0:
        yield Fault("loss.tversky_alpha", "0", "A number above 0, as loss.tversky_beta is 0 too")
    weights = loss.class_weights
    if weights and len(weights) != classes:
        allowed = f"{classes} numbers, the background's first and then one per class, or none"
        yield Fault("loss.class_weights", format_value(weights), allowed)
    if weights and not (all(math.isfinite(weight) and weight >= 0 for weight in weights) and any(weights)):
        yield Fault("loss.class_weights", format_value(weights), "Numbers from 0 up, one at least above 0")
    if regions and loss.name in WITHOUT_REGIONS:
        yield Fault("loss.name", loss.name, "Another loss, such as dice_ce: weights of classes are for classes that do not overlap")


def _check_rows(configuration: Configuration) -> Iterator[Fault]:
    if not all(math.isfinite(step) and step > 0 for step in configuration.spacing):
        yield Fault("spacing", format_value(configuration.spacing, "spacing"), "Numbers above 0, in mm")
    if not all(math.isfinite(size) and size >= 1 for size in configuration.median_shape):
        yield Fault("median_shape", format_value(configuration.median_shape, "median_shape"), "Numbers from 1 up, in voxels")
    axes = configuration.mirror_axes
    if len(set(axes)) != len(axes) or not set(axes) <= set(range(configuration.dimension)):
        yield Fault("mirror_axes", format_value(axes), f"Some of {', '.join(map(str, range(configuration.dimension)))}, each once, or none")


def _check_ranges(augmentation: AugmentationSpec) -> Iterator[Fault]:
    for fields, holds, allowed in RANGES.values():
        for field in fields:
            low, high = getattr(augmentation, field)
            if not (math.isfinite(low) and math.isfinite(high) and holds(low) and holds(high) and low <= high):
                yield Fault(f"augmentation.{field}", format_value((low, high)), f"The lowest value, then the highest, both {allowed}")
    if not all(0 <= angle <= 180 for angle in augmentation.rotation):
        allowed = "Two angles from 0 to 180 degrees: about the first axis, and about the other two"
        yield Fault("augmentation.rotation", format_value(augmentation.rotation), allowed)


def _check_normalization(configuration: Configuration) -> Iterator[Fault]:
    for index, channel in enumerate(configuration.normalization):
        if channel.scheme != "ct":
            continue
        field, todo = f"normalization.{index}", f"Set normalization.{index}.low, .high, .mean and .std together with its scheme."
        if not channel.low < channel.high:
            yield Fault(f"{field}.low", format_value(channel.low), f"Less than {field}.high, {format_value(channel.high)}, for ct", todo)
        if not (channel.std > 0 and all(map(math.isfinite, (channel.low, channel.high, channel.mean, channel.std)))):
            yield Fault(f"{field}.std", format_value(channel.std), "A number above 0, for ct", todo)


def _check_patch(configuration: Configuration) -> Iterator[Fault]:
    """Every axis can be halved as often as the network does, and something is left to normalise at the deepest stage."""
    text = format_value(configuration.patch_size, "patch_size")
    divisors = [math.prod(stride[axis] for stride in configuration.network.strides) for axis in range(configuration.dimension)]
    for axis, (size, divisor) in enumerate(zip(configuration.patch_size, divisors)):
        if size < 1 or size % divisor:
            smaller, larger = size // divisor * divisor, (max(size, 0) // divisor + 1) * divisor
            nearest = f"{smaller} or {larger}" if smaller > 0 else f"{larger}"
            yield Fault("patch_size", text, f"Axis {axis}, {size}, must be a multiple of {divisor}, the product of its strides: {nearest}")
    if math.prod(configuration.patch_size) == math.prod(divisors):
        yield Fault("patch_size", text, "Larger on some axis: the deepest stage has a single voxel, where nothing is left to normalise")


def _check_previous(configuration: Configuration, plan: Plan) -> Iterator[Fault]:
    """A cascade, and nothing else, has a configuration before it."""
    others = [other.name for other in plan.configurations if other.name not in (configuration.name, "2d", "3d_cascade")]
    previous = format_value(configuration.previous)
    if configuration.name != "3d_cascade":
        if configuration.previous is not None:
            yield Fault("previous", previous, "None: only the 3d_cascade goes on from another configuration's masks")
    elif configuration.previous not in others:
        yield Fault(
            "previous", previous, f"The configuration whose masks it refines: {', '.join(others) or 'the plan has none that could be'}"
        )


def _check_memory(configuration: Configuration, plan: Plan, dataset: Dataset) -> Iterator[Fault]:
    """Training fits the machine planned for; let pass is what the planner itself knew to be larger, as with nnU-Net's rules.

    Another version may count other bytes: what it has planned, and nobody changed, need not fit by the count of this one.
    """
    if plan.autoseg_version != __version__ and not configuration.user_set:
        return
    needed, memory = estimate_needs(configuration, dataset, plan.machine).training_bytes, plan.machine.memory
    if memory and needed > max(memory, configuration.memory.training_bytes):
        value = f"{format_value(configuration.patch_size, 'patch_size')} at batch_size {configuration.batch_size}"
        excess = f"{(needed - memory) / 1e9:.2f} GB ({(needed - memory) / memory:.0%})"
        allowed = f"Training would need {needed / 1e9:.2f} GB, {excess} more than the {memory / 1e9:.2f} GB of {plan.machine.name}"
        yield Fault("patch_size", value, allowed, SMALLER)
