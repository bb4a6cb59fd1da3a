"""What was measured in the scans: per case, so that the whole is a union and nothing derived is stored."""

from autoseg.records.base import Record, SavedRecord

QUANTILE_LEVELS = (0.0, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 1.0)


class Intensities(Record, frozen=True, kw_only=True):
    """Statistics of the values of one channel: population std, quantiles at QUANTILE_LEVELS; empty quantiles where count is 0."""

    count: int
    mean: float
    std: float
    quantiles: tuple[float, ...]


class ChannelIntensities(Record, frozen=True, kw_only=True):
    """One channel of one case: over the whole cropped image, and over the foreground of its label."""

    whole: Intensities
    foreground: Intensities


class ClassObjects(Record, frozen=True, kw_only=True):
    """One class in one case: its volume, and its objects (connected components, face or corner neighbours).

    `centre` is the mean position of its voxels as a share of the scan's edges (0 … 1 per axis, canonical order; empty where it has none).
    `volume` in mm³ (mm² or pixels in 2D); `object_volumes` and `object_extents` are the minimum, lower quartile, median, upper quartile
    and maximum over objects, of the volume and of the longest edge of the bounding box (mm).
    """

    name: str
    voxels: int
    volume: float
    objects: int
    object_volumes: tuple[float, ...]
    object_extents: tuple[float, ...]
    centre: tuple[float, ...] = ()


NMS_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)


class MeasuredObjects(Record, frozen=True, kw_only=True):
    """The objects of one case of an instance task, each with its row in the packed little-endian int32 arrays (base64 in JSON).

    `boxes` (n, 2 · dimension): lowest and, half-open, highest voxel edges on the scan's own grid, canonical axis order; `voxels` (n,);
    `classes` (n,): class numbers 1 … N. `touching` counts objects with a face neighbour of another object, `on_border` those at the
    image's border, `in_parts` those of several components, `tiny` those below 4 voxels; `overlapping` counts voxels that belonged to
    more than one object (files of one object each), `lost` objects that had no voxel left then. `lost_to_nms` is the number of true
    objects that greedy NMS of boxes would delete at each of NMS_LEVELS.
    """

    boxes: bytes
    voxels: bytes
    classes: bytes
    touching: int
    on_border: int
    in_parts: int
    tiny: int
    overlapping: int
    lost: int
    lost_to_nms: tuple[int, ...]


class CaseFingerprint(Record, frozen=True, kw_only=True):
    """One case, in canonical orientation: shapes in voxels, spacing in mm, array order. `digest` is that of the case's files.

    `objects` are there in instance tasks.
    """

    case: str
    digest: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    cropped_shape: tuple[int, ...]
    channels: tuple[ChannelIntensities, ...]
    classes: tuple[ClassObjects, ...]
    objects: MeasuredObjects | None = None


class PooledIntensities(Record, frozen=True, kw_only=True):
    """Foreground values of one channel over all cases, every case weighted alike: `low` and `high` are the quantiles .005 and .995."""

    mean: float
    median: float
    std: float
    minimum: float
    maximum: float
    low: float
    high: float


class Summary(Record, frozen=True, kw_only=True):
    """What a fingerprint by nnU-Net says of the whole data set, where ours would hold it case by case.

    `kept` is the median share of a scan's voxels that cropping leaves.
    """

    kept: float
    channels: tuple[PooledIntensities, ...]


class Fingerprint(SavedRecord, frozen=True, kw_only=True):
    """The case records, sorted by case. `summary` is there only where the fingerprint was taken over from nnU-Net."""

    cases: tuple[CaseFingerprint, ...]
    summary: Summary | None = None
