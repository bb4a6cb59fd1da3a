"""What ITK does not say about a NIfTI file: that it ends early, and that it holds NaN. It reads zeros in both cases."""

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

GZIP_MAGIC = b"\x1f\x8b"
BLOCK = 1 << 20  # bytes, a multiple of every voxel size
FLOAT_TYPES = {16: "f4", 64: "f8"}  # NIfTI's datatype codes of real numbers
HEADER_SIZES = (348, 540)  # of NIfTI-1 and NIfTI-2, the first number in the file


def find_fault(path: Path, header: Mapping[str, str]) -> str:
    """What is wrong with a file that ITK has read, in words; empty where nothing is. `header` holds ITK's NIfTI metadata.

    A whole gzip file ends with its own length (RFC 1952), so that integers need not be unpacked again; real numbers are, as NaN can be
    anywhere.
    """
    voxels = math.prod(int(header[f"dim[{axis}]"]) for axis in range(1, int(header["dim[0]"]) + 1))
    offset = int(float(header["vox_offset"]))
    expected = offset + voxels * int(header["bitpix"]) // 8
    kind = FLOAT_TYPES.get(int(header["datatype"]))
    if kind is None and _read_stated_size(path) == expected % 2**32:
        return ""
    found, bad = _examine(path, offset, kind)
    if found < expected:
        return f"The file ends early: its header promises {expected} bytes of header and voxels, {found} are there."
    return f"It holds {bad} NaN or infinite values." if bad else ""


def _read_stated_size(path: Path) -> int:
    """Bytes of the unpacked file: as gzip states them at its end (modulo 2³²), or the size of a plain file."""
    with path.open("rb") as stream:
        if stream.read(2) != GZIP_MAGIC:
            return path.stat().st_size % 2**32
        stream.seek(-4, 2)
        return int.from_bytes(stream.read(4), "little")


def _read_blocks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes up to where the file ends or is damaged."""
    with path.open("rb") as plain:
        packed = plain.read(2) == GZIP_MAGIC
    with gzip.open(path) if packed else path.open("rb") as stream, contextlib.suppress(EOFError, OSError, zlib.error):
        while block := stream.read(BLOCK):
            yield block


def _examine(path: Path, offset: int, kind: str | None) -> tuple[int, int]:
    """Number of bytes, and of values that are not finite among the real numbers of type `kind` after `offset`."""
    found, bad = 0, 0
    left, order, size = b"", "<", np.dtype(kind or "u1").itemsize
    for block in _read_blocks(path):
        if found == 0:
            order = "<" if int.from_bytes(block[:4], "little") in HEADER_SIZES else ">"
        voxels = left + block[max(0, offset - found) :]
        found += len(block)
        if kind is not None:
            whole = len(voxels) // size * size
            bad += int((~np.isfinite(np.frombuffer(voxels[:whole], dtype=order + kind))).sum())
            left = voxels[whole:]
    return found, bad
