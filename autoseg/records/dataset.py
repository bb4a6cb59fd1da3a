"""What was found in a folder of scans."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord

TaskName = Literal["semantic", "instance"]
LabelForm = Literal["values", "ids", "files"]


class Channel(Record, frozen=True, kw_only=True):
    """One input channel: the files that hold it, as a path with `{case}`, and which component of a colour or 4D file it is."""

    name: str
    pattern: str
    component: int | None = None


class ClassLabel(Record, frozen=True, kw_only=True):
    """One foreground class: its name and the values that stand for it in the label files (the first is written to masks).

    Classes of which two share a value are regions (BraTS: the tumour's core lies in the whole tumour). Masks are painted region by region
    in the order of the classes, the later over the earlier.
    """

    name: str
    values: tuple[int, ...]


class Part(Record, frozen=True, kw_only=True):
    """What belongs to the same classes: the values that stand for it in the label files, and those classes' places, ascending."""

    values: tuple[int, ...]
    classes: tuple[int, ...]


def list_parts(classes: tuple[ClassLabel, ...]) -> tuple[Part, ...]:
    """What the label maps of a run tell apart, numbered 1 … N in this order: the regions' distinct parts, or the classes themselves.

    >>> whole, core = ClassLabel(name="whole", values=(1, 2, 3)), ClassLabel(name="core", values=(3,))
    >>> [(part.values, part.classes) for part in list_parts((whole, core))]
    [((1, 2), (0,)), ((3,), (0, 1))]
    """
    members: dict[int, list[int]] = {}
    for place, label in enumerate(classes):
        for value in label.values:
            members.setdefault(value, []).append(place)
    values: dict[tuple[int, ...], list[int]] = {}
    for value, places in members.items():
        values.setdefault(tuple(places), []).append(value)
    return tuple(Part(values=tuple(own), classes=places) for places, own in values.items())


def are_regions(classes: tuple[ClassLabel, ...]) -> bool:
    """Whether two classes share a value: a voxel may then be of several, and the network answers each with a sigmoid of its own."""
    values = [value for label in classes for value in label.values]
    return len(set(values)) < len(values)


def count_outputs(classes: tuple[ClassLabel, ...]) -> int:
    """Channels of a network's answer: one per region, or one per class and one for the background."""
    return len(classes) + (not are_regions(classes))


class Case(Record, frozen=True, kw_only=True):
    """The files of one case, relative to the data set's root: one image per channel, the label if there is one.

    `group` is what must not be torn apart by the folds (a patient); `digest` is the SHA-256 of the files' contents. The label is a folder
    where every object has a file of its own; `object_classes` is the file, if any, that says which object is of which class.
    """

    id: str
    images: tuple[str, ...]
    label: str | None = None
    object_classes: str | None = None
    group: str = ""
    digest: str = ""


class Dataset(SavedRecord, frozen=True, kw_only=True):
    """A folder of scans with its labels, as it was understood.

    `root` is absolute; `layout` names the row of the table of layouts that fitted; classes are numbered 1 … N in their order here,
    background is 0 (file value `background_value`); label maps of regions hold the numbers of their parts (list_parts). `label_form` says
    what the values in label files are: those of classes, the numbers of objects (`ids`), or one object in each file (`files`).
    """

    root: str
    task: TaskName = "semantic"
    dimension: Literal[2, 3]
    unit: Literal["mm", "px"]
    layout: str
    label_pattern: str = ""
    label_form: LabelForm = "values"
    channels: tuple[Channel, ...]
    classes: tuple[ClassLabel, ...]
    background_value: int = 0
    ignore_value: int | None = None
    cases: tuple[Case, ...]

    @property
    def regions(self) -> bool:
        return are_regions(self.classes)
