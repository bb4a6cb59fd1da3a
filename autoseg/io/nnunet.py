"""Takes over what nnU-Net has measured of a data set, so that it can be planned here without its scans."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from autoseg.errors import InputError, RecordError
from autoseg.io.classes import IGNORE
from autoseg.io.files import list_files, load_record
from autoseg.io.scans import get_ending
from autoseg.records.base import Record
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import CaseFingerprint, Fingerprint, PooledIntensities, Summary

FINGERPRINT, DATASET = "dataset_fingerprint.json", "dataset.json"
LABEL_COPIES = "gt_segmentations/"  # the labels that nnU-Net keeps beside its fingerprint
FAKE_SPACING = 999.0  # nnU-Net's slice distance of an image: this, or this many times its largest pixel edge
ROUNDING = 1e-9  # by which that product may miss

Triple = tuple[float, float, float]


class IntensityProperties(Record, frozen=True, kw_only=True):
    """nnU-Net's statistics of one channel's foreground, over all cases."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


class DatasetFingerprint(Record, frozen=True, kw_only=True):
    """`dataset_fingerprint.json`: spacings (mm) and cropped shapes (voxels) in the axis order of the arrays, images as one slice."""

    spacings: tuple[Triple, ...]
    shapes_after_crop: tuple[tuple[int, int, int], ...]
    foreground_intensity_properties_per_channel: dict[str, IntensityProperties]
    median_relative_size_after_cropping: float


class DatasetDescription(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """`dataset.json`, as far as planning needs it; nnU-Net lets users add fields of their own. `modality` is an older name."""

    channel_names: dict[str, str] | None = None
    modality: dict[str, str] | None = None
    labels: dict[str, int | tuple[int, ...]]
    training_cases: int = msgspec.field(name="numTraining")


def read_nnunet_folder(folder: Path) -> tuple[Dataset, Fingerprint] | None:
    """The data set and fingerprint of a folder that holds nnU-Net's and no scans; None for any other folder.

    nnU-Net stores images as volumes of one slice; they become 2D here. Regions become classes of several values: enough to plan. Raises
    InputError that names file, field, value and what is allowed.
    """
    path = folder / FINGERPRINT
    if not path.is_file() or _holds_scans(folder):
        return None
    if not (folder / DATASET).is_file():
        raise InputError(
            f"{folder} holds {FINGERPRINT}, but no {DATASET}.",
            "Channels, labels and the number of cases stand in it.",
            todo=f"Copy nnU-Net's {DATASET} beside the fingerprint.",
        )
    measured, declared = load_record(DatasetFingerprint, path), load_record(DatasetDescription, folder / DATASET)
    _check_cases(path, measured)
    channels = _read_channels(folder / DATASET, declared)
    summary = _read_summary(path, measured, len(channels))
    classes, ignore_value = _read_labels(folder / DATASET, declared.labels)
    if declared.training_cases < 1:
        raise _refuse(folder / DATASET, "numTraining", declared.training_cases, "It is the number of training cases, 1 or more.")
    flat = is_flat(measured)
    cases = _name_cases(declared.training_cases)
    dataset = Dataset(
        root=str(folder.resolve()),
        dimension=2 if flat else 3,
        unit="px" if flat and all(spacing[1:] == (1.0, 1.0) for spacing in measured.spacings) else "mm",
        layout="nnunet_fingerprint",
        channels=tuple(Channel(name=name, pattern="") for name in channels),
        classes=classes,
        ignore_value=ignore_value,
        cases=tuple(Case(id=case, images=()) for case in cases),
    )
    return dataset, Fingerprint(cases=_make_cases(measured, flat), summary=summary)


def is_flat(measured: DatasetFingerprint) -> bool:
    """Whether the cases are images: one slice each, with nnU-Net's fake distance to the next.

    Where pixels differ much in size, so does that distance, and nnU-Net takes it for a real one: it resamples along it and plans in 3D what
    has a single slice. So that its decisions come out equal, such images stay volumes.
    """
    fake = all(
        shape[0] == 1 and (spacing[0] == FAKE_SPACING or spacing[0] >= FAKE_SPACING * max(spacing[1:]) * (1 - ROUNDING))
        for spacing, shape in zip(measured.spacings, measured.shapes_after_crop)
    )
    return fake and _count_slices(measured) == 1


def _count_slices(measured: DatasetFingerprint) -> float:
    """Slices of a median image at the distance that nnU-Net would choose: the 10 % finest where edges are long enough, else the median."""
    distances = np.array(measured.spacings)[:, 0]
    edges = np.median(np.array(measured.shapes_after_crop), axis=0)
    target = np.percentile(distances, 10) if 3 * edges[0] < min(edges[1:]) else np.median(distances)
    return float(np.median(np.rint(distances / target)))


def _holds_scans(folder: Path) -> bool:
    return any(get_ending(path) and not path.startswith(LABEL_COPIES) for path in list_files(folder))


def _refuse(path: Path, field: str, value: Any, allowed: str) -> RecordError:
    return RecordError(f"{path} cannot be used: field {field} is {msgspec.json.encode(value).decode()}.", allowed)


def _check_cases(path: Path, measured: DatasetFingerprint) -> None:
    spacings, shapes = measured.spacings, measured.shapes_after_crop
    if len(spacings) != len(shapes) or not spacings:
        raise RecordError(
            f"{path} cannot be used: field spacings has {len(spacings)} entries, field shapes_after_crop {len(shapes)}.",
            "Both have one entry per case, and there is one case at least.",
        )
    for index, (spacing, shape) in enumerate(zip(spacings, shapes)):
        if not all(0 < step < float("inf") for step in spacing):
            raise _refuse(path, f"spacings[{index}]", spacing, "A spacing is three positive numbers (mm).")
        if min(shape) < 1:
            raise _refuse(path, f"shapes_after_crop[{index}]", shape, "A shape is three whole numbers of voxels, 1 or more.")


def _read_channels(path: Path, declared: DatasetDescription) -> tuple[str, ...]:
    names = declared.channel_names if declared.channel_names is not None else declared.modality
    if names is None:
        raise RecordError(f"{path} cannot be used: field channel_names is missing.", 'It maps numbers to names: {"0": "CT"}.')
    expected = [str(number) for number in range(len(names))]
    if not names or set(names) != set(expected):
        raise _refuse(path, "channel_names", names, "Its keys are the channels' numbers from 0 on, without gaps.")
    nameless = [key for key in expected if not names[key].strip()]
    if nameless:
        raise _refuse(path, f"channel_names.{nameless[0]}", "", "Every channel has a name; it decides the normalisation.")
    return tuple(names[key] for key in expected)


def _read_summary(path: Path, measured: DatasetFingerprint, channels: int) -> Summary:
    field = "foreground_intensity_properties_per_channel"
    properties = measured.foreground_intensity_properties_per_channel
    expected = [str(number) for number in range(channels)]
    if set(properties) != set(expected):
        raise _refuse(path, f"{field} (its keys)", sorted(properties), f"{DATASET} names the channels {', '.join(expected)}.")
    kept = measured.median_relative_size_after_cropping
    if not 0 < kept <= 1 + ROUNDING:
        raise _refuse(path, "median_relative_size_after_cropping", kept, "It is a share: more than 0, at most 1.")
    return Summary(kept=kept, channels=tuple(_pool(properties[key]) for key in expected))


def _pool(found: IntensityProperties) -> PooledIntensities:
    return PooledIntensities(
        mean=found.mean,
        median=found.median,
        std=found.std,
        minimum=found.min,
        maximum=found.max,
        low=found.percentile_00_5,
        high=found.percentile_99_5,
    )


def _read_labels(path: Path, labels: dict[str, int | tuple[int, ...]]) -> tuple[tuple[ClassLabel, ...], int | None]:
    """The classes by their values, and the value of `ignore`: with the background, as many as there are labels."""
    values = {name: (value,) if isinstance(value, int) else value for name, value in labels.items()}
    for name, own in values.items():
        if not name.strip() or not own or min(own) < 0 or (name == IGNORE and len(own) > 1):
            allowed = "A label has a name and a value of 0 or more, or a list of them; ignore has one value."
            raise _refuse(path, "labels", {name: labels[name]}, allowed)
    repeated = [value for value, count in Counter(values.values()).items() if count > 1]
    if repeated:
        names = {name: labels[name] for name, own in values.items() if own == repeated[0]}
        raise _refuse(path, "labels", names, "No two labels have the same value.")
    ignored = values.pop(IGNORE, None)
    classes = [ClassLabel(name=name, values=own) for name, own in values.items() if own != (0,)]
    if not classes or len(classes) == len(values):
        raise _refuse(path, "labels", labels, "There is a background of value 0, and one class at least.")
    return tuple(sorted(classes, key=lambda label: label.values)), None if ignored is None else ignored[0]


def _name_cases(count: int) -> tuple[str, ...]:
    width = max(4, len(str(count - 1)))
    return tuple(f"case_{number:0{width}d}" for number in range(count))


def _make_cases(measured: DatasetFingerprint, flat: bool) -> tuple[CaseFingerprint, ...]:
    """One record per entry; the fake first axis of images (`flat`) is dropped."""
    first = 1 if flat else 0
    names = _name_cases(len(measured.spacings))
    return tuple(
        CaseFingerprint(
            case=name,
            digest="",
            shape=shape[first:],
            spacing=spacing[first:],
            orientation="",
            cropped_shape=shape[first:],
            channels=(),
            classes=(),
        )
        for name, spacing, shape in zip(names, measured.spacings, measured.shapes_after_crop)
    )
