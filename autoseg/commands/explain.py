"""`autoseg plan RUN --explain`: a plan told from the scans to the last value, for whoever has to answer for the masks."""

import math
import textwrap
from pathlib import Path

import msgspec
import numpy as np

from autoseg.arrays.tiles import make_tiles
from autoseg.commands.meanings import MEANINGS, UNITS
from autoseg.errors import InputError
from autoseg.io.classes import describe_regions
from autoseg.io.run_folder import RunFolder, choose_configuration
from autoseg.planning.change import find_reason_key, list_values
from autoseg.planning.check import KIND_FIELDS
from autoseg.planning.faults import format_value
from autoseg.planning.needs import estimate_needs
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import CaseFingerprint, ClassObjects, Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import Configuration, Normalization, Plan

WIDTH = 140
NAME, VALUE = 28, 26  # columns of a table of fields; the reason has the rest
LISTED = 40  # classes beyond which the others are only counted
DEVICES = {"cpu": "CPU", "cuda": "NVIDIA GPU", "mps": "Apple GPU"}


def explain(run: str | Path, configuration: str | None = None) -> str:
    """The story of a plan: data, machine, configurations, and one of them (else the default) with every value and its reason.

    Raises InputError for a folder that is no run and a configuration that the plan has not.
    """
    folder = open_run(run, "--explain")
    plan, dataset = folder.load_plan(), folder.load_dataset()
    chosen = choose_configuration(plan, configuration)
    fingerprint = folder.load_fingerprint()
    lines = [f"Plan of {folder.path}, made with profile {plan.profile}"]
    lines += ["", "DATA", *_describe_data(dataset, fingerprint)]
    lines += ["", "MACHINE", *_describe_machine(plan.machine)]
    lines += ["", "CONFIGURATIONS", *_list_configurations(plan)]
    lines += ["", f"{chosen.name}: EVERY VALUE, AND WHY", *_describe_fields(chosen, dataset)]
    lines += ["", "NETWORK", *_describe_network(chosen, dataset, plan.machine)]
    lines += ["", "WHAT TO EXPECT", *_describe_expectations(chosen, plan, fingerprint)]
    lines += ["", "YOURS", *_describe_changes(chosen, folder.path)]
    return "\n".join(lines)


def open_run(run: str | Path, flag: str) -> RunFolder:
    """The run folder. Raises InputError that says what to type where there is no plan in it."""
    folder = RunFolder(Path(run))
    if folder.plan.is_file():
        return folder
    if not folder.path.is_dir():
        raise InputError(f"There is no folder {folder.path}.", todo=f"Give {flag} the run folder that autoseg plan SCANS -o RUN has made.")
    raise InputError(
        f"{folder.path} is no run: it has no plan.json.",
        f"{flag} is for a folder that autoseg plan has made.",
        todo=f"If it holds scans, plan them first:\nautoseg plan {folder.path} -o RUN\nautoseg plan RUN {flag}",
    )


def _wrap(head: str, text: str) -> list[str]:
    """`head`, and the text beside it, wrapped."""
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=True) or [head.rstrip()]


def _row(name: str, value: str, reason: str, mark: str = " ") -> list[str]:
    """One field: mark, name, value, and the reason in the third column, or below where the value is too long for its own."""
    text = name.lstrip()
    indent = len(name) - len(text)
    head = f" {' ' * indent}{mark}{text:<{NAME - indent}} "
    if len(value) <= VALUE:
        return _wrap(f"{head}{value:<{VALUE}}  ", reason)
    below = _wrap(" " * (len(head) + VALUE + 2), reason) if reason else []
    return [*_wrap(head, value), *below]


def _span(values: list[float], unit: str = "") -> str:
    """Smallest, median and largest in short.

    >>> _span([1.0, 2.0, 4.0], "mm"), _span([3.0, 3.0])
    ('1 … 4 mm (median 2)', '3')
    """
    ends = f"{min(values):.3g}" if min(values) == max(values) else f"{min(values):.3g} … {max(values):.3g}"
    middle = "" if min(values) == max(values) else f" (median {float(np.median(values)):.3g})"
    return f"{ends} {unit}".strip() + middle


def _describe_data(dataset: Dataset, fingerprint: Fingerprint) -> list[str]:
    cases, unit = fingerprint.cases, dataset.unit
    axes = ("z", "y", "x")[-dataset.dimension :]
    groups = len({case.group or case.id for case in dataset.cases})
    patients = f" of {groups} patients" if groups < len(dataset.cases) else ""
    lines = [
        *_wrap("  folder     ", f"{dataset.root} (layout: {dataset.layout})"),
        f"  cases      {len(cases)}{patients}, {dataset.dimension}D",
    ]
    for index, axis in enumerate(axes):
        lines.append(
            f"  along {axis}    {_span([c.spacing[index] for c in cases], unit)} apart, {_span([c.shape[index] for c in cases])} voxels"
        )
    kept = float(np.median([math.prod(case.cropped_shape) / math.prod(case.shape) for case in cases]))
    if kept < 1:
        lines.append(f"  cropping   leaves {kept:.0%} of a median scan: the rest of its border is empty")
    for index, channel in enumerate(dataset.channels):
        lines += _wrap(f"  channel    {channel.name:<20} ", _describe_values(cases, index))
    for index, label in enumerate(dataset.classes[:LISTED]):
        found = [part for case in cases for part in case.classes if part.name == label.name and part.voxels]
        lines += _wrap(f"  class {index + 1:<4} {label.name:<20} ", _describe_class(found, len(cases), dataset))
    if len(dataset.classes) > LISTED:
        lines.append(f"  … and {len(dataset.classes) - LISTED} classes more")
    return lines + _describe_labels(dataset)


def _describe_labels(dataset: Dataset) -> list[str]:
    """What is special about the label maps: overlapping classes, voxels to be ignored."""
    lines = _wrap("  regions    ", f"the classes {describe_regions(dataset.classes)}") if dataset.regions else []
    if dataset.ignore_value is not None:
        lines += _wrap("  ignored    ", f"value {dataset.ignore_value} in the labels: these voxels teach nothing and are not scored")
    return lines


def _describe_values(cases: tuple[CaseFingerprint, ...], index: int) -> str:
    measured = [case.channels[index].whole for case in cases if index < len(case.channels) and case.channels[index].whole.quantiles]
    if not measured:
        return "values were not measured scan by scan"
    low, high = min(part.quantiles[0] for part in measured), max(part.quantiles[-1] for part in measured)
    return f"values {low:.4g} … {high:.4g}, mean of a scan {_span([part.mean for part in measured])}"


def _describe_class(found: list[ClassObjects], cases: int, dataset: Dataset) -> str:
    if not found:
        return "nowhere, or not measured scan by scan"
    scale, unit = _choose_volume_unit(float(np.median([part.volume for part in found])), dataset)
    volumes = _span([part.volume / scale for part in found], unit)
    extents = [part.object_extents[2] for part in found if part.object_extents]
    longest = f", longest edge of a median object {_span(extents, dataset.unit)}" if extents else ""
    return f"in {len(found)} of {cases} cases, {volumes}; objects in a case {_span([part.objects for part in found])}{longest}"


def _choose_volume_unit(volume: float, dataset: Dataset) -> tuple[float, str]:
    if dataset.dimension == 2:
        return 1.0, "mm²" if dataset.unit == "mm" else "pixels"
    if dataset.unit == "px":
        return 1.0, "voxels"
    return (1000.0, "ml") if volume >= 100 else (1.0, "mm³")


def _describe_machine(machine: Machine) -> list[str]:
    rate = f", {machine.flops / 1e9:.0f} billion operations a second ({machine.flops_source})" if machine.flops else ""
    return _wrap("  ", f"{DEVICES[machine.device]} {machine.name}, {format_bytes(machine.memory)} of memory, {machine.cores} cores{rate}")


def _list_configurations(plan: Plan) -> list[str]:
    lines = []
    for configuration in sorted(plan.configurations, key=lambda c: c.name != plan.default_configuration):
        network, memory = configuration.network, configuration.memory
        lines += _wrap(
            f"  {configuration.name:<12} ",
            f"spacing {_format_spacing(configuration.spacing)}, patch {format_value(configuration.patch_size, 'patch_size')}, "
            f"batch {configuration.batch_size}, {len(network.strides)} stages of {network.features[0]} to {network.features[-1]} maps, "
            f"{format_bytes(memory.training_bytes)} to train",
        )
        if configuration.name == plan.default_configuration:
            lines += _wrap(" " * 15, f"the default: {plan.default_reason}")
        if configuration.previous:
            lines += _wrap(" " * 15, f"goes on from the masks of {configuration.previous}")
    return lines


def _describe_fields(configuration: Configuration, dataset: Dataset) -> list[str]:
    """All but the network, memory and time, which have tables of their own."""
    unused = tuple(field for field in ("detection", "thresholds") if getattr(configuration, field) is None)
    apart = ("name", "normalization", "network", "memory", "seconds_per_step", "reasons", "user_set", *unused)
    lines: list[str] = []
    for field in configuration.__struct_fields__:
        value = getattr(configuration, field)
        if field == "normalization":
            lines += _describe_normalization(configuration, dataset)
        elif field not in apart and not isinstance(value, msgspec.Struct):
            lines += _describe_field(configuration, field, dataset)
    for field in configuration.__struct_fields__:
        value = getattr(configuration, field)
        if field not in apart and isinstance(value, msgspec.Struct):
            lines += _row(field, "", configuration.reasons.get(field, ""))
            for part in value.__struct_fields__:
                lines += _describe_field(configuration, f"{field}.{part}", dataset)
    return lines


def _describe_field(configuration: Configuration, name: str, dataset: Dataset) -> list[str]:
    unit = dataset.unit if name == "spacing" else UNITS.get(name, "")
    text = format_value(list_values(configuration)[name], name).replace(",", ", ")
    short = f"  {name.partition('.')[2]}" if "." in name else name
    return _row(short, f"{text} {unit}".rstrip(), _find_reason(configuration, name), _mark(configuration, name))


def _find_reason(configuration: Configuration, name: str) -> str:
    reason = configuration.reasons.get(find_reason_key(configuration, name), "")
    if not reason and name.endswith("_probability"):
        return MEANINGS.get(name, "of a patch to be changed so")
    return reason or MEANINGS.get(name, "")


def _mark(configuration: Configuration, name: str) -> str:
    return "*" if name in configuration.user_set else " "


def _describe_normalization(configuration: Configuration, dataset: Dataset) -> list[str]:
    lines = _row("normalization", "", configuration.reasons.get("normalization", ""))
    for index, (spec, channel) in enumerate(zip(configuration.normalization, dataset.channels)):
        name = f"normalization.{index}"
        own = [field for field in configuration.user_set if field.startswith(f"{name}.")]
        reasons = "; ".join(f"{field.rpartition('.')[2]} {configuration.reasons.get(field, '')}" for field in own)
        lines += _row(f"  {index}  {channel.name}", _describe_scheme(spec), reasons, "*" if own else " ")
    return lines


def _describe_scheme(spec: Normalization) -> str:
    match spec.scheme:
        case "zscore":
            return "zscore inside the object" if spec.mask else "zscore"
        case "ct":
            return f"ct: clipped to {spec.low:.5g} … {spec.high:.5g}, mean {spec.mean:.4g}, deviation {spec.std:.4g}"
    return spec.scheme


def _describe_network(configuration: Configuration, dataset: Dataset, machine: Machine) -> list[str]:
    """What kind it is, its stages as a table, and the reasons of its own fields."""
    network, reasons = configuration.network, configuration.reasons
    weights = estimate_needs(configuration, dataset, machine).weights
    product = "a U-Net" if configuration.detection is None else "Mask R-CNN on an encoder"
    kind = f"{product} of kind {network.kind}, about {weights / 1e6:.2f} million weights"
    lines = [
        *_wrap("  ", "; ".join(text for text in (kind, reasons.get("network", "")) if text)),
        *_draw_stages(configuration, dataset.unit),
    ]
    for field in network.__struct_fields__:
        key = find_reason_key(configuration, f"network.{field}")
        if key in reasons or field in ("activation", "dropout"):
            value = format_value(getattr(network, field)) if field in ("activation", "dropout") else ""
            lines += _row(field, value, reasons.get(key, MEANINGS.get(key, "")), _mark(configuration, f"network.{field}"))
    return lines


def _draw_stages(configuration: Configuration, unit: str) -> list[str]:
    """One line per stage: the encoder's way down, and what the decoder has at the same resolution on its way up."""
    network, sizes, steps = configuration.network, configuration.patch_size, configuration.spacing
    counts = KIND_FIELDS[network.kind]
    down, up = getattr(network, counts), (*network.decoder_convolutions, "")
    rows = [("stage", "strides", "kernel_sizes", "features", counts, "decoder_convolutions", "map (voxels)", f"voxel ({unit})")]
    for stage, (stride, kernel) in enumerate(zip(network.strides, network.kernel_sizes)):
        sizes = tuple(size // step for size, step in zip(sizes, stride))
        steps = tuple(edge * step for edge, step in zip(steps, stride))
        path, field, extent = (format_value(part, "patch_size") for part in (stride, kernel, sizes))
        voxel = _format_spacing(steps)
        rows.append((str(stage), path, field, str(network.features[stage]), str(down[stage]), str(up[stage]), extent, voxel))
    columns = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(f"{text:<{width}}" for text, width in zip(row, columns)).rstrip() for row in rows]


def _describe_expectations(configuration: Configuration, plan: Plan, fingerprint: Fingerprint) -> list[str]:
    memory, machine = configuration.memory, plan.machine
    share = f" of {format_bytes(machine.memory)} ({memory.training_bytes / machine.memory:.0%})" if machine.memory else ""
    lines = _row("memory.training_bytes", f"{format_bytes(memory.training_bytes)}{share}", configuration.reasons.get("memory", ""))
    lines += _row("memory.prediction_bytes", format_bytes(memory.prediction_bytes), "to predict a scan of median size")
    disk = format_bytes(memory.prepared_bytes) if memory.prepared_bytes else "not known"
    lines += _row("memory.prepared_bytes", disk, "the prepared scans on the disk, before compression")
    kept = memory.prepared_bytes * len(fingerprint.cases[0].classes) / (4 * len(configuration.normalization) + 2)  # a byte each, no image
    if kept and configuration.product == "classes":
        lines += _row("kept probabilities", format_bytes(kept), "of the validation cases of all folds on the disk, before compression")
    seconds = configuration.seconds_per_step
    step = format_duration(seconds) if seconds else "not known"
    lines += _row("seconds_per_step", step, "" if seconds else "it is measured before the first step of a training")
    lines += _row("a training of one fold", describe_training(configuration), "then every validation case is predicted")
    return lines + _row("predicting a median scan", *_describe_prediction(configuration, plan, fingerprint))


def describe_training(configuration: Configuration) -> str:
    """How long a fold is trained: by the clock, or by steps and the time of each."""
    schedule, seconds = configuration.schedule, configuration.seconds_per_step
    if schedule.minutes:
        steps = f", about {schedule.minutes * 60 / seconds:.0f} steps" if seconds else ""
        return format_duration(60 * schedule.minutes) + steps
    count = schedule.epochs * configuration.steps_per_epoch
    return f"{count} steps" + (f", about {format_duration(count * seconds)}" if seconds else "")


def _describe_prediction(configuration: Configuration, plan: Plan, fingerprint: Fingerprint) -> tuple[str, str]:
    """Tiles of the sliding window, and a third of a step's time per patch: the way forward without the way back."""
    shape = tuple(max(math.ceil(size), edge) for size, edge in zip(configuration.median_shape, configuration.patch_size))
    tiles, skipped = len(make_tiles(shape, configuration.patch_size)), len(plan.axes) - configuration.dimension
    slices = int(np.median([math.prod(case.cropped_shape[axis] for axis in plan.axes[:skipped]) for case in fingerprint.cases]))
    each = configuration.seconds_per_step / (3 * configuration.batch_size * configuration.accumulation)
    text = f"{tiles} patch{'es' if tiles > 1 else ''}" + (f" in each of {slices} slices" if skipped else "")
    times = 2 ** len(configuration.mirror_axes)
    mirrored = f"{times} times that with --tta" if times > 1 else "--tta changes nothing, as no axis is mirrored"
    return (f"about {format_duration(tiles * slices * each)}" if each else "not known"), f"{text}; {mirrored}"


def _format_spacing(steps: tuple[float, ...]) -> str:
    """A spacing in short."""
    return "x".join(f"{step:.3g}" for step in steps)


def format_bytes(size: float) -> str:
    """An amount of memory in the unit that suits it.

    >>> format_bytes(25_276_063_744), format_bytes(19_400_000)
    ('25.3 GB', '19.4 MB')
    """
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def format_duration(seconds: float) -> str:
    """A duration in the unit that suits it.

    >>> [format_duration(seconds) for seconds in (0.04, 90, 1800, 36000, 1e6)]
    ['0.04 s', '90 s', '30 minutes', '10 hours', '11.6 days']
    """
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "minutes"), (172800, 3600, "hours")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def _describe_changes(configuration: Configuration, run: Path) -> list[str]:
    example = f"autoseg plan {run} --set configurations.{configuration.name}.batch_size={configuration.batch_size + 1}"
    if not configuration.user_set:
        return ["  nothing: all values are the planner's. To change one:", f"  {example}"]
    values = list_values(configuration)
    rows = [f"{name} = {format_value(values[name], name)}" if name in values else name for name in configuration.user_set]
    return [line for row in rows for line in _wrap("  ", row)] + ["  They are marked * above; every other value is the planner's."]
