"""From found cases to a described and measured data set: Dataset and the case records of its Fingerprint."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from autoseg.arrays.cropping import compute_bounding_box, compute_nonzero_mask, crop
from autoseg.arrays.intensities import measure_intensities
from autoseg.arrays.labels import find_values, measure_objects
from autoseg.errors import AutosegError, InputError
from autoseg.io.discovery import Discovery, Problem
from autoseg.io.files import digest_files
from autoseg.io.scans import choose_unit, describe_grid_mismatch, make_volume, read_components, read_label
from autoseg.parallel import run_cases
from autoseg.progress import Progress
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import CaseFingerprint, ChannelIntensities, ClassObjects

COLOURS = ("red", "green", "blue")
MANY_VALUES = 30  # label values of one object each beyond which they are numbers of objects, not classes


@dataclass(frozen=True)
class MeasureTask:
    """One case to be opened in a worker: absolute paths, one image per channel file.

    `groups` are the values of each class where they are known; else every value is measured by itself.
    """

    case: Case
    root: Path
    orientation: str
    groups: tuple[tuple[int, ...], ...] | None = None
    ignore: int | None = None


@dataclass(frozen=True)
class Measurement:
    """What one case holds, before the data set's channels and classes are settled: statistics per component of each image file,

    objects per group of label values. What is to be ignored counts as background.
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


def measure(discovery: Discovery, orientation: str, workers: int, progress: Progress) -> tuple[list[Measurement], list[Problem]]:
    """Opens every case, in `workers` processes; what cannot be opened is a problem."""
    groups = None if discovery.classes is None else tuple(label.values for label in discovery.classes)
    tasks = [MeasureTask(case, discovery.root, orientation, groups, discovery.ignore_value) for case in discovery.cases]
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
    if task.ignore is not None:
        label = np.where(label == task.ignore, 0, label)
    cropped = crop(volume.array, compute_bounding_box(compute_nonzero_mask(volume.array)))
    foreground = label != 0
    channels = tuple(
        ChannelIntensities(whole=measure_intensities(part), foreground=measure_intensities(channel[foreground]))
        for part, channel in zip(cropped, volume.array)
    )
    values = tuple(find_values(label))
    groups = [(value,) for value in values] if task.groups is None else [group for group in task.groups if set(group) & set(values)]
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
        values=values,
        objects={group: measure_objects(label, str(group), group, volume.grid.spacing) for group in groups},
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
    found = sorted({value for m in measurements for value in m.values})
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
    if len(found) > MANY_VALUES and all(o.objects <= 1 for m in measurements for o in m.objects.values()):
        return (), [
            Problem("all cases", f"labels hold {len(found)} values of one object each: numbers of objects, not classes (--task instance)")
        ]
    if names and len(names) != len(found):
        return (), [Problem("all cases", f"--classes names {len(names)} classes, the labels hold {len(found)} values: {found[:10]}")]
    labels = names or (("foreground",) if len(found) == 1 else tuple(f"label_{value}" for value in found))
    return tuple(ClassLabel(name=name, values=(value,)) for name, value in zip(labels, found)), []


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
