"""Objects told apart in the labels: a file for each, or a number for each in one file, and a class map beside them."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import SimpleITK as sitk

from autoseg.arrays.objects import number_objects, paint_masks
from autoseg.errors import InputError
from autoseg.io.scans import CANONICAL, get_ending, read_components, read_label, read_mask, strip_ending
from autoseg.records.dataset import Case, ClassLabel, LabelForm
from autoseg.records.grid import Grid

EIGHT_BITS = 255  # ids that an 8-bit map can hold
CLASS_MAP = '{"instances": {"1": "CLASS", …}}'  # what one looks like
SHOWN = 5  # names listed in a message


@dataclass(frozen=True)
class ObjectMap:
    """The objects of one case: `ids` int32 in canonical orientation (0 background, 1 … M, -1 to be ignored), `classes` 1 … N of each.

    `grid` is where the file says that it lies. `overlapping` counts voxels that belonged to several objects (files of one object each), and
    `lost` objects that have no voxel left. `overflow`: an 8-bit map that holds all the ids it can. `absent` are the objects that the class
    map names and the label lacks.
    """

    ids: np.ndarray
    classes: tuple[int, ...]
    grid: Grid
    overlapping: int = 0
    lost: int = 0
    overflow: bool = False
    absent: tuple[str, ...] = ()


class ClassMap(msgspec.Struct):
    """{"instances": {"1": "name", …}}, or with class numbers from 0 as nnDetection counts them; other keys are left alone."""

    instances: dict[str, str | int] | None = None


def read_objects(
    label: Path,
    form: LabelForm,
    classes: tuple[ClassLabel, ...],
    orientation: str = CANONICAL,
    object_classes: Path | None = None,
    ignore: int | None = None,
) -> ObjectMap:
    """Reads the objects of a case: a folder of masks in the form `files`, else one map of ids in which `ignore` is no object.

    `object_classes` is the class map beside it; without one all objects are of class 1. Raises InputError that names the file at fault.
    """
    found, names = _read_folder(label, orientation) if form == "files" else _read_ids(label, ignore, orientation)
    if object_classes is None:
        if names and len(classes) > 1:
            raise InputError(
                f"Nothing says which objects of {label} are {' and which '.join(own.name for own in classes)}.",
                todo=f"a file {{case}}.json beside the label: {CLASS_MAP}",
            )
        return replace(found, classes=(1,) * len(names))
    chosen = read_class_map(object_classes) or {}
    unknown = [name for name in names if name not in chosen]
    if unknown:
        raise InputError(
            f"{object_classes} names no class for {len(unknown)} of {len(names)} objects: {_shorten(unknown)}.",
            todo=f"{CLASS_MAP} with every object of the label",
        )
    numbers = tuple(_number_class(chosen[name], classes, object_classes) for name in names)
    return replace(found, classes=numbers, absent=tuple(sorted(set(chosen) - set(names))) if form == "ids" else ())


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _number_class(value: str | int, classes: tuple[ClassLabel, ...], path: Path) -> int:
    """The number 1 … N of a class that a class map calls by name, or by its number from 0."""
    names = [label.name for label in classes]
    if isinstance(value, int) and 0 <= value < len(names):
        return value + 1
    if value in names:
        return names.index(str(value)) + 1
    raise InputError(f"{path}: class {value!r} is none of {', '.join(names)}.", todo="Plan the run again if the classes have changed.")


def read_class_map(path: Path) -> dict[str, str | int] | None:
    """The class of each object, by its number in the label (or its file's name without ending); None where the file is no class map.

    Raises InputError for a class map that cannot be read.
    """
    data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=ClassMap).instances
    except msgspec.DecodeError as error:
        if b'"instances"' not in data:
            return None  # a JSON file of something else: only a class map has to fit
        raise InputError(f"{path} is no class map: {error}.", todo=CLASS_MAP) from None


def list_case_files(case: Case, root: Path) -> list[Path]:
    """All files of a case, once each: images, label (every object's file where it is a folder) and class map."""
    label = [] if case.label is None else [root / case.label]
    if label and label[0].is_dir():
        label = list_object_files(label[0])
    more = [root / case.object_classes] if case.object_classes else []
    return [*(root / path for path in dict.fromkeys(case.images)), *label, *more]


def list_object_files(folder: Path) -> list[Path]:
    """The scan files of a folder in natural order (2 before 10)."""
    files = [path for path in folder.iterdir() if get_ending(path.name) and not path.name.startswith(".")]
    return sorted(files, key=lambda path: [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"(\d+)", path.name))])


def read_labels(path: Path, orientation: str = CANONICAL) -> tuple[np.ndarray, Grid]:
    """A label map as read_label gives it; of a folder of one file per object their union, with value 1."""
    if not path.is_dir():
        return read_label(path, orientation)
    found, _ = _read_folder(path, orientation)
    return (found.ids > 0).astype(np.int32), found.grid


def _read_folder(folder: Path, orientation: str) -> tuple[ObjectMap, list[str]]:
    """The map of a folder of masks without classes, and the names of its objects."""
    files = list_object_files(folder)
    if not files:
        raise InputError(f"{folder} holds no masks.", todo="Leave the case out, or give an image without objects one empty mask.")
    places: list[np.ndarray] = []
    grids: list[Grid] = []
    for path in files:
        mask, grid = read_mask(path, orientation)
        if grids and grid.shape != grids[0].shape:
            raise InputError(f"{path} has {_size(grid)} voxels, but {files[0].name} beside it has {_size(grids[0])}.")
        places.append(np.flatnonzero(mask))
        grids.append(grid)
    painted, overlapping = paint_masks(places, mask.shape)
    ids, left = number_objects(painted)
    names = [strip_ending(files[number - 1].name) for number in left]
    return ObjectMap(ids, (), grids[0], overlapping, lost=len(files) - len(left) if len(files) > 1 else 0), names


def _size(grid: Grid) -> str:
    return "x".join(str(edge) for edge in grid.shape)


def _read_ids(path: Path, ignore: int | None, orientation: str) -> tuple[ObjectMap, list[str]]:
    """The map of one file of ids, numbered anew in ascending order and without classes, and the ids that the file has."""
    values, grid = read_label(path, orientation)
    ignored = (values == -1) | (values == ignore) if ignore is not None else values == -1
    negative = values[(values < 0) & ~ignored]
    if negative.size:
        raise InputError(
            f"{path} holds negative numbers of objects, such as {int(negative[0])}.",
            "Objects are numbered from 1; 0 is the background and -1 what is to be ignored.",
        )
    ids, found = number_objects(np.where(ignored, 0, values))
    ids[ignored] = -1
    full = len(found) >= EIGHT_BITS and found[-1] == EIGHT_BITS and _has_eight_bits(path)
    return ObjectMap(ids, (), grid, overflow=full), [str(value) for value in found]


def _has_eight_bits(path: Path) -> bool:
    return read_components(path)[0].GetPixelID() in (sitk.sitkUInt8, sitk.sitkVectorUInt8)
