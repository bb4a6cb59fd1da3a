"""What was found in a folder of scans."""

from typing import Literal

from autoseg.records.base import Record, SavedRecord


class Channel(Record, frozen=True, kw_only=True):
    """One input channel: the files that hold it, as a path with `{case}`, and which component of a colour or 4D file it is."""

    name: str
    pattern: str
    component: int | None = None


class ClassLabel(Record, frozen=True, kw_only=True):
    """One foreground class: its name and the values that stand for it in the label files (the first is written to masks)."""

    name: str
    values: tuple[int, ...]


class Case(Record, frozen=True, kw_only=True):
    """The files of one case, relative to the data set's root: one image per channel, the label if there is one.

    `group` is what must not be torn apart by the folds (a patient); `digest` is the SHA-256 of the files' contents.
    """

    id: str
    images: tuple[str, ...]
    label: str | None = None
    group: str = ""
    digest: str = ""


class Dataset(SavedRecord, frozen=True, kw_only=True):
    """A folder of scans with its labels, as it was understood.

    `root` is absolute; `layout` names the row of the table of layouts that fitted; classes are numbered 1 … N in their order here,
    background is 0 (file value `background_value`).
    """

    root: str
    task: Literal["semantic", "instance"] = "semantic"
    dimension: Literal[2, 3]
    unit: Literal["mm", "px"]
    layout: str
    label_pattern: str = ""
    channels: tuple[Channel, ...]
    classes: tuple[ClassLabel, ...]
    background_value: int = 0
    ignore_value: int | None = None
    cases: tuple[Case, ...]
