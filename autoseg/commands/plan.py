"""`autoseg plan`: a folder of scans becomes a run with all decisions made."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, compute_nonzero_mask, crop
from autoseg.arrays.intensities import measure_intensities
from autoseg.arrays.labels import measure_objects
from autoseg.errors import AutosegError, InputError
from autoseg.io.discovery import Discovery, Problem, discover
from autoseg.io.files import digest_files, name_full_disk, remove_partials, save_record
from autoseg.io.machine import count_cores, measure_machine
from autoseg.io.profiles import read_profile
from autoseg.io.run_folder import RunFolder
from autoseg.io.scans import choose_unit, describe_grid_mismatch, make_volume, read_components, read_label
from autoseg.parallel import run_cases
from autoseg.planning.plan import Request, make_plan
from autoseg.planning.splits import check_splits, make_splits
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import CaseFingerprint, ChannelIntensities, ClassObjects, Fingerprint
from autoseg.records.plan import Configuration, Plan
from autoseg.records.splits import Fold, Splits

COLOURS = ("red", "green", "blue")
MANY_VALUES = 30  # label values of one object each beyond which they are numbers of objects, not classes


@dataclass(frozen=True)
class PlanOptions:
    """What may be asked of a plan; every field has a flag of the same name."""

    task: str = ""
    profile: str = ""
    memory: int | None = None
    minutes: float | None = None
    device: str = "auto"
    images: dict[str, str] | None = None
    labels: str | None = None
    classes: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    groups: str | None = None
    splits: Path | None = None
    exclude: tuple[str, ...] = ()
    workers: int | None = None


@dataclass(frozen=True)
class MeasureTask:
    """One case to be opened in a worker: absolute paths, one image per channel file."""

    case: Case
    root: Path
    orientation: str


@dataclass(frozen=True)
class Measurement:
    """What one case holds, before the data set's channels and classes are settled: statistics per component of each image file,

    objects per label value.
    """

    case: Case
    dimension: int
    unit: str
    components: tuple[int, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    cropped_shape: tuple[int, ...]
    channels: tuple[ChannelIntensities, ...]
    objects: dict[int, ClassObjects]
    mismatch: str


def plan(dataset: str | Path, run: str | Path, options: PlanOptions = PlanOptions(), progress: Progress = Silent()) -> Plan:
    """Finds the cases below `dataset`, measures them, decides everything, and writes the run folder.

    Raises InputError that lists every problem found; nothing is written then.
    """
    folder = RunFolder(Path(run))
    if options.task == "instance":
        raise InputError("Instance tasks cannot be planned yet.", todo="--task semantic trains the objects as one class.")
    _refuse_other_run(folder, Path(dataset))
    machine = measure_machine(options.device, options.memory)
    profile = read_profile(options.profile or ("autoseg-cpu" if machine.device == "cpu" else "autoseg"))
    if profile.budget == "operations" and not machine.flops:
        raise InputError(f"Profile '{profile.name}' is for a CPU, but the plan is for {machine.name}.", todo="Leave --profile out.")
    discovery = discover(Path(dataset), options.images, options.labels, options.groups, options.exclude)
    _show_pairs(discovery, progress)
    measurements, problems = _measure(discovery, profile.orientation, options.workers or count_cores(), progress)
    description, more = describe_dataset(discovery, measurements, options.classes)
    problems = [*discovery.problems, *problems, *more]
    if problems or description is None:
        raise _list_problems(problems, len(discovery.cases))
    _report_geometry(measurements, progress)
    fingerprint = Fingerprint(cases=tuple(_make_case_fingerprint(m, description) for m in measurements))
    splits = _read_splits(options.splits) if options.splits else make_splits(description)
    check_splits(splits, description)
    made = make_plan(description, fingerprint, profile, machine, Request(options.minutes, options.spacing))
    folder.path.mkdir(parents=True, exist_ok=True)
    remove_partials(folder.path)
    saved = ((folder.dataset, description), (folder.fingerprint, fingerprint), (folder.machine, machine), (folder.splits, splits))
    with name_full_disk(folder.path):
        for path, record in (*saved, (folder.plan, made)):  # the plan last: it makes the folder a run
            save_record(path, record)
    return made


def format_plan(plan: Plan, run: str) -> str:
    """The decisions of the default configuration as a table with their reasons, the others in a line, and what to type next."""
    lines = [f"Plan for {plan.machine.name} ({plan.machine.cores} cores), profile {plan.profile}"]
    for configuration in sorted(plan.configurations, key=lambda c: c.name != plan.default_configuration):
        facts = _list_facts(configuration)
        if configuration.name != plan.default_configuration:
            lines.append(f"Also planned: {configuration.name}, patch {facts['patch_size']}, batch {configuration.batch_size}")
            continue
        lines.append(f"{configuration.name}: {plan.default_reason}")
        width = max(len(value) for value in facts.values())
        lines += [f"  {name:<13} {value:<{width}}  {configuration.reasons.get(name, '')}" for name, value in facts.items()]
    lines.append(f"Next: autoseg train {run} --fold 0")
    return "\n".join(lines)


def _list_facts(configuration: Configuration) -> dict[str, str]:
    schedule, memory = configuration.schedule, configuration.memory
    return {
        "spacing": "x".join(f"{step:.3g}" for step in configuration.spacing),
        "patch_size": _shape(configuration.patch_size),
        "batch_size": str(configuration.batch_size),
        "normalization": ", ".join(n.scheme for n in configuration.normalization),
        "network": f"{len(configuration.network.strides)} stages",
        "features": f"{configuration.network.features[0]} to {configuration.network.features[-1]}",
        "loss": configuration.loss.name,
        "optimizer": configuration.optimizer.name,
        "schedule": f"{schedule.minutes:g} min" if schedule.minutes else f"{schedule.epochs} epochs",
        "mirror_axes": ", ".join(map(str, configuration.mirror_axes)) or "none",
        "memory": f"{memory.training_bytes / 1e9:.2f} GB",
    }


def _refuse_other_run(folder: RunFolder, dataset: Path) -> None:
    """A run that has models of another data set is not planned over."""
    if not folder.dataset.is_file() or not any((folder.path / "models").glob("*/fold_*")):
        return
    planned = Path(folder.load_dataset().root)
    if planned != dataset.resolve():
        raise InputError(f"{folder.path} holds models trained on {planned}.", todo="Give another folder with -o.")


def _show_pairs(discovery: Discovery, progress: Progress) -> None:
    lines = [f"{len(discovery.cases)} pairs of image and label in {discovery.root} (layout: {discovery.layout})"]
    for case in discovery.cases[:5]:
        lines.append(f"  {case.id}:  {' + '.join(case.images)}  ↔  {case.label}")
    if len(discovery.cases) > 5:
        lines.append(f"  … and {len(discovery.cases) - 5} more")
    progress.say("\n".join(lines), event="pairs", count=len(discovery.cases), layout=discovery.layout)
    for note in discovery.notes:
        progress.warn(note)


def _measure(discovery: Discovery, orientation: str, workers: int, progress: Progress) -> tuple[list[Measurement], list[Problem]]:
    tasks = [MeasureTask(case, discovery.root, orientation) for case in discovery.cases]
    measurements, problems = [], []
    progress.start("Measuring", len(tasks))
    for outcome in run_cases(measure_case, tasks, min(workers, len(tasks))):
        if outcome.result is not None:
            measurements.append(outcome.result)
        elif outcome.error is not None:
            problems.append(Problem(outcome.task.case.id, _one_line(outcome.error)))
        progress.advance(outcome.task.case.id)
    progress.finish()
    return sorted(measurements, key=lambda m: m.case.id), problems


def _one_line(error: AutosegError) -> str:
    return " ".join(text for text in (error.what, error.why) if text)


def measure_case(task: MeasureTask) -> Measurement:
    """Opens one case and measures it. Raises InputError that names the file at fault."""
    files = list(dict.fromkeys(task.root / path for path in task.case.images))
    components = [read_components(path) for path in files]
    images = [(path, image) for path, parts in zip(files, components) for image in parts]
    unit = choose_unit(files)
    volume = make_volume(images, task.orientation, unit)
    assert task.case.label is not None  # discovery leaves images without a label out
    label_path = task.root / task.case.label
    label, label_grid = read_label(label_path, task.orientation)
    if label.shape != volume.grid.shape:
        raise InputError(f"the label has {_shape(label.shape)} voxels, the image {_shape(volume.grid.shape)} ({task.case.label}).")
    mask = compute_nonzero_mask(volume.array)
    cropped = crop(volume.array, compute_bounding_box(mask))
    foreground = label != 0
    channels = tuple(
        ChannelIntensities(whole=measure_intensities(part), foreground=measure_intensities(channel[foreground]))
        for part, channel in zip(cropped, volume.array)
    )
    values = [int(value) for value in np.unique(label) if value != 0]
    return Measurement(
        case=msgspec.structs.replace(task.case, digest=digest_files([*files, label_path])),
        dimension=volume.array.ndim - 1,
        unit=unit,
        components=tuple(len(parts) for parts in components),
        shape=volume.grid.shape,
        spacing=volume.grid.spacing,
        orientation=volume.orientation,
        cropped_shape=cropped.shape[1:],
        channels=channels,
        objects={value: measure_objects(label, str(value), value, volume.grid.spacing) for value in values},
        mismatch=describe_grid_mismatch(volume.stored, label_grid),
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def describe_dataset(discovery: Discovery, measurements: list[Measurement], names: tuple[str, ...]) -> tuple[Dataset | None, list[Problem]]:
    """Settles channels and classes from what all cases hold; the problems are those that concern single cases."""
    if not measurements:
        return None, []
    dimension, problems = _settle_dimension(measurements)
    channels, more = _settle_channels(discovery, measurements)
    classes, still_more = _settle_classes(discovery, measurements, names)
    description = Dataset(
        root=str(discovery.root),
        dimension=dimension,  # type: ignore[arg-type]
        unit="mm" if any(m.unit == "mm" for m in measurements) else "px",
        layout=discovery.layout,
        label_pattern=discovery.label_pattern,
        channels=channels,
        classes=classes,
        ignore_value=discovery.ignore_value,
        cases=tuple(m.case for m in measurements),
    )
    return description, problems + more + still_more


def _settle_dimension(measurements: list[Measurement]) -> tuple[int, list[Problem]]:
    usual = Counter(m.dimension for m in measurements).most_common(1)[0][0]
    wrong = [m for m in measurements if m.dimension != usual]
    return usual, [Problem(m.case.id, f"it is {m.dimension}D, most others are {usual}D") for m in wrong]


def _settle_channels(discovery: Discovery, measurements: list[Measurement]) -> tuple[tuple[Channel, ...], list[Problem]]:
    """Colour files become three channels, 4D files one per volume; grey among colour stays grey in all three."""
    usual = tuple(max(m.components[i] for m in measurements) for i in range(len(measurements[0].components)))
    wrong = [m for m in measurements if any(own not in (1, most) for own, most in zip(m.components, usual))]
    problems = [Problem(m.case.id, f"its files have {m.components} components, others {usual}") for m in wrong]
    channels = []
    for (name, pattern), count in zip(discovery.channels, usual):
        if count == 1:
            channels.append(Channel(name=name, pattern=pattern))
            continue
        names = _name_components(name, count, discovery)
        channels += [Channel(name=part, pattern=pattern, component=index) for index, part in enumerate(names)]
    return tuple(channels), problems


def _name_components(name: str, count: int, discovery: Discovery) -> list[str]:
    if len(discovery.component_names) == count:
        return list(discovery.component_names)
    if count == len(COLOURS):
        return list(COLOURS)
    return [f"{name}_{index}" for index in range(count)]


def _settle_classes(
    discovery: Discovery, measurements: list[Measurement], names: tuple[str, ...]
) -> tuple[tuple[ClassLabel, ...], list[Problem]]:
    """Classes as declared in the folder, or every value found; problems are cases with values that no class has."""
    found = sorted({value for m in measurements for value in m.objects} - {discovery.ignore_value})
    if discovery.classes is not None and not names:
        known = {value for label in discovery.classes for value in label.values}
        problems = [
            Problem(m.case.id, f"label values {sorted(set(m.objects) - known)[:5]} are not among those of dataset.json {sorted(known)}")
            for m in measurements
            if set(m.objects) - known - {discovery.ignore_value}
        ]
        return discovery.classes, problems
    if not found:
        return (), [Problem("all cases", "every label is empty (only 0): there is nothing to learn")]
    if len(found) > MANY_VALUES and all(o.objects <= 1 for m in measurements for o in m.objects.values()):
        return (), [
            Problem("all cases", f"labels hold {len(found)} values of one object each: numbers of objects, not classes (--task instance)")
        ]
    if names and len(names) != len(found):
        return (), [Problem("all cases", f"--classes names {len(names)} classes, the labels hold {len(found)} values: {found[:10]}")]
    labels = names or (("foreground",) if len(found) == 1 else tuple(f"label_{value}" for value in found))
    return tuple(ClassLabel(name=name, values=(value,)) for name, value in zip(labels, found)), []


def _make_case_fingerprint(measurement: Measurement, dataset: Dataset) -> CaseFingerprint:
    empty = ClassObjects(name="", voxels=0, volume=0.0, objects=0, object_volumes=(), object_extents=())
    classes = tuple(msgspec.structs.replace(measurement.objects.get(label.values[0], empty), name=label.name) for label in dataset.classes)
    repeated = measurement.channels * (len(dataset.channels) if len(measurement.channels) == 1 else 1)
    return CaseFingerprint(
        case=measurement.case.id,
        digest=measurement.case.digest,
        shape=measurement.shape,
        spacing=measurement.spacing,
        orientation=measurement.orientation,
        cropped_shape=measurement.cropped_shape,
        channels=repeated[: len(dataset.channels)],
        classes=classes,
    )


def _list_problems(problems: list[Problem], count: int) -> InputError:
    width = max((len(problem.case) for problem in problems), default=0)
    cases = sorted({problem.case for problem in problems if problem.case != "all cases"})
    table = "\n".join(f"{problem.case:<{width}}  {problem.text}" for problem in sorted(problems, key=lambda p: p.case))
    todo = "Correct the files and repeat the command"
    if cases:
        todo += f", or go on without them:\n--exclude {','.join(cases)}"
    return InputError(f"{len(problems)} problems in {count} cases:\n{table}", todo=todo)


def _report_geometry(measurements: list[Measurement], progress: Progress) -> None:
    orientations = Counter(m.orientation for m in measurements if m.orientation)
    if len(orientations) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in orientations.most_common())
        progress.say(f"Orientations: {listed}. All are brought to one on reading; masks are written on each scan's own grid.")
    wrong = [m for m in measurements if m.mismatch]
    if wrong:
        progress.warn(
            f"{len(wrong)} labels have the shape of their image but another geometry in the header (first: {wrong[0].case.id}, "
            f"{wrong[0].mismatch}). The voxels are taken as they lie."
        )


class _FoldFile(msgspec.Struct):
    """A fold in a user's file: ours, or nnU-Net's `train` and `val`."""

    training: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()


def _read_splits(path: Path) -> Splits:
    try:
        data = path.read_bytes()
        folds = msgspec.json.decode(data, type=list[_FoldFile])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path} holds no folds: {error}.", todo='[{"training": ["case", …], "validation": ["case", …]}, …]') from None
    return Splits(folds=tuple(Fold(training=f.training or f.train, validation=f.validation or f.val) for f in folds))
