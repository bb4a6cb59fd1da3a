"""A prepared case: what lies beside its arrays in the store."""

from autoseg.records.base import Record, SavedRecord


class FileStamp(Record, frozen=True, kw_only=True):
    """Size and modification time: equal stamps spare the digest of the contents."""

    path: str
    size: int
    modified_ns: int


class Geometry(Record, frozen=True, kw_only=True):
    """How the prepared array came from the canonical one: transposed to `shape`, cropped to `box`, resampled to `prepared_shape`."""

    shape: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    prepared_shape: tuple[int, ...]


class PreparedCase(SavedRecord, frozen=True, kw_only=True):
    """`case_digest` and `preparation_digest` say what the arrays were made from and how; `foreground` holds, per class, voxels to centre

    patches on (drawn evenly), `objects` likewise voxels of each of its objects, `labelled` voxels that are not to be ignored (empty where
    there is nothing to ignore), all packed (arrays/labels.py, pack_voxels; base64 in JSON); `background` is the value of the image's own
    background per channel. In an instance task the label map holds the numbers 1 … M of objects (-1 to be ignored), and `object_classes`
    their classes 1 … N, `object_voxels` how many voxels each has.
    """

    case: str
    case_digest: str
    preparation_digest: str
    stamps: tuple[FileStamp, ...]
    geometry: Geometry
    background: tuple[float, ...]
    foreground: tuple[bytes, ...]
    objects: tuple[tuple[bytes, ...], ...] = ()
    labelled: bytes = b""
    object_classes: tuple[int, ...] = ()
    object_voxels: tuple[int, ...] = ()
