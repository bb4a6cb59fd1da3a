"""From found cases to a described and measured data set: Dataset and the case records of its Fingerprint."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, compute_nonzero_mask, crop
from autoseg.arrays.duplicates import make_signature
from autoseg.arrays.intensities import measure_intensities
from autoseg.arrays.labels import find_values, measure_objects
from autoseg.arrays.objects import measure_class, measure_map
from autoseg.errors import AutosegError, InputError
from autoseg.io.discovery import Discovery, Problem
from autoseg.io.files import digest_files
from autoseg.io.objects import ObjectMap, list_case_files, read_labels, read_objects
from autoseg.io.scans import choose_unit, describe_grid_mismatch, make_volume, read_components
from autoseg.parallel import run_cases
from autoseg.progress import Progress
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset, LabelForm
from autoseg.records.fingerprint import CaseFingerprint, ChannelIntensities, ClassObjects, MeasuredObjects
from autoseg.records.grid import Grid

COLOURS = ("red", "green", "blue")
MANY_VALUES = 30  # label values of one object each beyond which they are numbers of objects, not classes
SINGLE_SHARE = 0.9  # of values that are one object: some objects lie in parts
PARTED_SHARE = 0.5  # of objects in several parts beyond which they are no objects


@dataclass(frozen=True)
class MeasureTask:
    """One case to be opened in a worker: absolute paths, one image per channel file.

    `classes` are None where every value is to be measured by itself; in an instance task they are those of objects, and labels have a form.
    """

    case: Case
    root: Path
    orientation: str
    classes: tuple[ClassLabel, ...] | None = None
    ignore: int | None = None
    instances: bool = False
    form: LabelForm = "values"


@dataclass(frozen=True)
class Measurement:
    """What one case holds, before the data set's channels and classes are settled: statistics per component of each image file,

    objects per group of label values. What is to be ignored counts as background. In an instance task `measured` are
    the objects, `overflow` says that an 8-bit map is full, and `absent` are the objects that the class map names and the label lacks;
    `signature` tells near-duplicates.
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
    values: tuple[int, ...]
    objects: dict[tuple[int, ...], ClassObjects]
    mismatch: str
    signature: np.ndarray
    measured: MeasuredObjects | None = None
    overflow: bool = False
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """The label of one case, as the measurements need it: what is ignored is background; `map` in an instance task only."""

    label: np.ndarray
    grid: Grid
    map: ObjectMap | None = None


def measure(discovery: Discovery, orientation: str, workers: int, progress: Progress) -> tuple[list[Measurement], list[Problem]]:
    """Opens every case, in `workers` processes; what cannot be opened is a problem."""
    known = (discovery.classes, discovery.ignore_value, discovery.task == "instance", discovery.label_form)
    tasks = [MeasureTask(case, discovery.root, orientation, *known) for case in discovery.cases]
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
    reference = _read_reference(task)
    label = reference.label
    if label.shape != volume.grid.shape:
        raise InputError(f"the label has {_shape(label.shape)} voxels, the image {_shape(volume.grid.shape)} ({task.case.label}).")
    cropped = crop(volume.array, compute_bounding_box(compute_nonzero_mask(volume.array)))
    foreground = label != 0
    channels = tuple(
        ChannelIntensities(whole=measure_intensities(part), foreground=measure_intensities(channel[foreground]))
        for part, channel in zip(cropped, volume.array)
    )
    plain = Measurement(
        case=msgspec.structs.replace(task.case, digest=digest_files(list_case_files(task.case, task.root))),
        dimension=volume.array.ndim - 1,
        unit=unit,
        components=tuple(len(parts) for parts in components),
        shape=volume.grid.shape,
        spacing=volume.grid.spacing,
        orientation=volume.orientation,
        cropped_shape=cropped.shape[1:],
        channels=channels,
        values=(),
        objects={},
        mismatch=describe_grid_mismatch(volume.stored, reference.grid),
        signature=make_signature(volume.array),
    )
    return _measure_values(plain, label, task) if reference.map is None else _measure_map(plain, reference.map, task)


def sign_case(task: MeasureTask) -> np.ndarray:
    """The signature of a case that was measured before, by its images alone."""
    files = list(dict.fromkeys(task.root / path for path in task.case.images))
    images = [(path, image) for path in files for image in read_components(path)]
    return make_signature(make_volume(images, task.orientation, choose_unit(files)).array)


def _read_reference(task: MeasureTask) -> Reference:
    assert task.case.label is not None  # discovery leaves images without a label out
    path = task.root / task.case.label
    if task.instances:
        beside = task.root / task.case.object_classes if task.case.object_classes else None
        found = read_objects(path, task.form, task.classes or (), task.orientation, beside, task.ignore)
        return Reference(np.maximum(found.ids, 0), found.grid, found)
    label, grid = read_labels(path, task.orientation)
    return Reference(label if task.ignore is None else np.where(label == task.ignore, 0, label), grid)


def _measure_values(plain: Measurement, label: np.ndarray, task: MeasureTask) -> Measurement:
    """With the components of each class, or of each value where classes are not known."""
    values = tuple(find_values(label))
    known = None if task.classes is None else [own.values for own in task.classes]
    groups = [(value,) for value in values] if known is None else [group for group in known if set(group) & set(values)]
    return replace(plain, values=values, objects={group: measure_objects(label, str(group), group, plain.spacing) for group in groups})


def _measure_map(plain: Measurement, found: ObjectMap, task: MeasureTask) -> Measurement:
    """With the objects that are told apart, all and by class."""
    measured = measure_map(found.ids, found.classes)
    classes = {own.values: measure_class(found.ids, measured, own.values[0], own.name, plain.spacing) for own in task.classes or ()}
    measured = msgspec.structs.replace(measured, overlapping=found.overlapping, lost=found.lost)
    values = tuple(sorted(set(found.classes)))
    return replace(plain, values=values, objects=classes, measured=measured, overflow=found.overflow, absent=found.absent)


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
        task=discovery.task,
        dimension=dimension,  # type: ignore[arg-type]
        unit="mm" if any(m.unit == "mm" for m in measurements) else "px",
        layout=discovery.layout,
        label_pattern=discovery.label_pattern,
        label_form=discovery.label_form,
        channels=channels,
        classes=classes,
        ignore_value=discovery.ignore_value,
        cases=tuple(name_files(m.case, discovery, channels) for m in measurements),
    )
    return description, problems + more + still_more


def name_files(case: Case, discovery: Discovery, channels: tuple[Channel, ...]) -> Case:
    """The case with one file per channel: that of a colour image is named once for each of its components."""
    files = {pattern: path for (_, pattern), path in zip(discovery.channels, case.images, strict=True)}
    return msgspec.structs.replace(case, images=tuple(files[channel.pattern] for channel in channels))


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
    found = sorted({value for m in measurements for value in m.values})
    if discovery.task == "instance":
        return discovery.classes or (), _doubt_objects(measurements)
    if discovery.classes is not None and not names:
        known = {value for label in discovery.classes for value in label.values}
        where = f"those of {discovery.declared_in} {sorted(known)}"
        problems = [
            Problem(m.case.id, f"label values {sorted(set(m.values) - known)[:5]} are not among {where}")
            for m in measurements
            if set(m.values) - known
        ]
        return discovery.classes, problems
    if not found:
        return (), [Problem("all cases", "every label is empty (only 0): there is nothing to learn")]
    if len(found) > MANY_VALUES and not names and _are_single(measurements):
        text = f"the labels hold {len(found)} values of one object each. If they number objects: --task instance; if they are classes: "
        return (), [Problem("all cases", text + "--task semantic --classes NAME=VALUE,…")]
    if names and len(names) != len(found):
        return (), [Problem("all cases", f"--classes names {len(names)} classes, the labels hold {len(found)} values: {found[:10]}")]
    labels = names or (("foreground",) if len(found) == 1 else tuple(f"label_{value}" for value in found))
    return tuple(ClassLabel(name=name, values=(value,)) for name, value in zip(labels, found)), []


def _are_single(measurements: list[Measurement]) -> bool:
    """Whether nearly every value is one object in every case that has it."""
    objects = [own.objects for m in measurements for own in m.objects.values()]
    return sum(count <= 1 for count in objects) >= SINGLE_SHARE * len(objects)


def _doubt_objects(measurements: list[Measurement]) -> list[Problem]:
    """Problems of an instance task as a whole: no objects at all, and values that are classes."""
    measured = [m.measured for m in measurements if m.measured is not None]
    counts = [len(own.voxels) // 4 for own in measured]
    if not sum(counts):
        return [Problem("all cases", "every label is empty (only 0): there is nothing to learn")]
    parted = sum(own.in_parts for own in measured)
    if parted > PARTED_SHARE * sum(counts):
        text = f"{parted} of {sum(counts)} label values have several parts, {sum(counts) / len(counts):.1f} values a case: classes, not "
        return [
            Problem("all cases", text + "numbers of objects. For a class per voxel: --task semantic; else give every object its number")
        ]
    return []


def make_case_fingerprint(measurement: Measurement, dataset: Dataset) -> CaseFingerprint:
    """The case's record, with channels and classes as the data set has settled them."""
    empty = ClassObjects(name="", voxels=0, volume=0.0, objects=0, object_volumes=(), object_extents=())
    classes = tuple(msgspec.structs.replace(measurement.objects.get(label.values, empty), name=label.name) for label in dataset.classes)
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
        objects=measurement.measured,
    )


def report_geometry(measurements: list[Measurement], progress: Progress) -> None:
    """Says what is odd about orientations and headers."""
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


def report_objects(measurements: list[Measurement], progress: Progress) -> None:
    """Says what is odd about objects, a line each."""
    measured = [(m, m.measured) for m in measurements if m.measured is not None]
    odd = {
        "{count} objects have several parts that do not touch": [(m, own.in_parts) for m, own in measured],
        "{count} objects are smaller than 4 voxels, too small to be learned": [(m, own.tiny) for m, own in measured],
        "{count} voxels belong to several objects; each went to the smallest of them": [(m, own.overlapping) for m, own in measured],
        "{count} objects have no voxel left (empty files, or hidden by others)": [(m, own.lost) for m, own in measured],
        "{count} label maps have 8 bits and hold 255 objects, all that fit: some may be lost": [(m, int(m.overflow)) for m, _ in measured],
        "{count} objects of the class maps are not in the labels": [(m, len(m.absent)) for m, _ in measured],
    }
    for text, found in odd.items():
        cases = [(m, count) for m, count in found if count]
        if cases:
            first, own = cases[0]
            where = f"{len(cases)} of {len(measurements)} cases, first {first.case.id} ({own})"
            progress.warn(f"{text.format(count=sum(count for _, count in cases))}: {where}.", event="objects", cases=len(cases))
