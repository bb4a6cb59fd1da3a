"""The objects found in one scan: what lies beside its label map."""

from typing import Literal

import msgspec

from autoseg.records.base import Record, SavedRecord


class ListedObject(Record, frozen=True, kw_only=True):
    """One object, by its number in the label map, on the grid of the scan's own file.

    `box` is `[lo…, hi…]` in voxel edges in array order ((z, y, x) or (y, x)), half-open, and `box_mm` that times the spacing. `centroid` is
    in voxel edges too (the centre of the first voxel is ½), `world` in mm as ITK has it (x, y, z; LPS). `size` is the area or volume,
    `diameter` that of a disc or ball of this size. `merged`: put together from several tiles. `rle` is there where other objects cover
    part of it in the label map: lengths of the runs of its mask in its box, row by row, outside and inside in turn, outside first.
    """

    id: int
    class_name: str = msgspec.field(name="class")
    score: float
    box: tuple[int, ...]
    box_mm: tuple[float, ...]
    centroid: tuple[float, ...]
    world: tuple[float, ...]
    voxels: int
    size: float
    diameter: float
    touches_border: bool
    merged: bool
    rle: tuple[int, ...] = ()


class CaseObjects(SavedRecord, frozen=True, kw_only=True):
    """CASE_objects.json, by falling score. `spacing` in array order; with the unit px all that is called mm is in pixels."""

    case: str
    mask: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: Literal["mm", "px"]
    objects: tuple[ListedObject, ...]
