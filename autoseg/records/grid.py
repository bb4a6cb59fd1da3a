"""Where the voxels of a volume lie in the world."""

from autoseg.records.base import Record


class Grid(Record, frozen=True, kw_only=True):
    """Shape and spacing in array order ((z, y, x) or (y, x)); origin and direction as ITK has them.

    `shape` in voxels, `spacing` in mm (pixels where the file knows no size), `origin` the world position (x, y, z; LPS, mm) of the first
    voxel, `direction` the row-major matrix whose columns are the directions of the image's x, y, z axes.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
