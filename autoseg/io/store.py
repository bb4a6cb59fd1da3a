"""The prepared arrays: compressed, chunked, read in boxes; a case is there when its record is, and the record is written last."""

from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np

from autoseg.arrays.cropping import Box
from autoseg.io.files import load_record, save_record, write_bytes
from autoseg.records.prepared import PreparedCase

CHUNK_EDGE = 64  # voxels; a chunk of 64³ float16 is 0.5 MB, close to a core's cache
HALF_LIMIT = 6e4  # largest magnitude that float16 holds with a margin


@dataclass(frozen=True)
class Store:
    """`folder` holds CASE.image.b2nd (channel, …), CASE.label.b2nd (…) and CASE.json."""

    folder: Path

    def record_path(self, case: str) -> Path:
        return self.folder / f"{case}.json"

    def load(self, case: str) -> PreparedCase:
        """The record of a case. Raises InputError where it was not prepared."""
        return load_record(PreparedCase, self.record_path(case))

    def write(self, record: PreparedCase, image: np.ndarray, label: np.ndarray) -> None:
        """Writes one case: arrays first, record last, so that a record vouches for its arrays.

        Images are kept in float16 (relative error 5e-4, far below noise) unless a value is too large for it; labels in int16, but
        numbers of objects (int32) as they are.
        """
        self.record_path(record.case).unlink(missing_ok=True)
        small = np.abs(image).max(initial=0) < HALF_LIMIT
        _write_array(self.folder / f"{record.case}.image.b2nd", image.astype(np.float16 if small else np.float32), leading=1)
        kind = np.int32 if label.dtype == np.int32 else np.int16
        _write_array(self.folder / f"{record.case}.label.b2nd", label.astype(kind), leading=0)
        save_record(self.record_path(record.case), record)

    def read_shape(self, case: str) -> tuple[int, ...]:
        """Shape of a prepared label map in voxels."""
        return tuple(blosc2.open(str(self.folder / f"{case}.label.b2nd"), mode="r").shape)

    def read_image(self, case: str, box: Box) -> np.ndarray:
        """The part of a prepared image inside the box (last axes), float32."""
        array = blosc2.open(str(self.folder / f"{case}.image.b2nd"), mode="r")
        return np.asarray(array[(slice(None), *(slice(low, high) for low, high in box))], dtype=np.float32)

    def read_label(self, case: str, box: Box) -> np.ndarray:
        """The part of a prepared label map inside the box: int16, or int32 where it holds numbers of objects."""
        array = blosc2.open(str(self.folder / f"{case}.label.b2nd"), mode="r")
        return np.asarray(array[tuple(slice(low, high) for low, high in box)])


def _write_array(path: Path, array: np.ndarray, leading: int) -> None:
    """Compressed in memory, then written by Python, which reports a full disk."""
    chunks = (*array.shape[:leading], *(min(size, CHUNK_EDGE) for size in array.shape[leading:]))
    packed = blosc2.asarray(
        np.ascontiguousarray(array), chunks=chunks, cparams=blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, nthreads=1)
    )
    write_bytes(path, packed.to_cframe())
