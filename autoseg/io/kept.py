"""Kept probabilities: a small file for each validation case, from which ensembles are made without predicting again."""

from pathlib import Path

import blosc2
import numpy as np

from autoseg.errors import InputError
from autoseg.io.files import load_record, save_record, write_bytes
from autoseg.io.store import CHUNK_EDGE
from autoseg.records.kept import KeptProbabilities


def get_kept_paths(folder: Path, case: str) -> tuple[Path, Path]:
    """The array of a case and its record."""
    return folder / f"{case}_probabilities.b2nd", folder / f"{case}_probabilities.json"


def write_kept(folder: Path, record: KeptProbabilities, packed: np.ndarray) -> None:
    """Writes one case (class, …; uint8): the array first, the record last, so that a record vouches for its array.

    ZSTD without a filter: half the size of LZ4, and smaller than with shuffled bits, on smooth answers.
    """
    array, paper = get_kept_paths(folder, record.case)
    paper.unlink(missing_ok=True)
    chunks = (1, *(min(size, CHUNK_EDGE) for size in packed.shape[1:]))
    how = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=5, nthreads=1, filters=[blosc2.Filter.NOFILTER], filters_meta=[0])
    write_bytes(array, blosc2.asarray(np.ascontiguousarray(packed), chunks=chunks, cparams=how).to_cframe())
    save_record(paper, record)


def find_kept(folder: Path, case: str, mask_digest: str) -> KeptProbabilities | None:
    """The record of what was kept with the mask of this digest; None where nothing is, or only what belonged to another mask."""
    array, paper = get_kept_paths(folder, case)
    if not (array.is_file() and paper.is_file()):
        return None
    try:
        record = load_record(KeptProbabilities, paper)
    except InputError:
        return None
    return record if record.mask_digest == mask_digest else None


def read_kept(folder: Path, record: KeptProbabilities) -> np.ndarray:
    """The array of a record (class, …), uint8. Raises InputError where it is damaged."""
    path = get_kept_paths(folder, record.case)[0]
    try:
        packed = np.asarray(blosc2.open(str(path), mode="r")[...])
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path} is damaged.", str(error), todo="Delete it and repeat the command.") from None
    if packed.shape[1:] != record.geometry.prepared_shape or packed.dtype != np.uint8:
        raise InputError(
            f"{path} does not fit its record.", f"It has {packed.shape[1:]} voxels, the record {record.geometry.prepared_shape}."
        )
    return packed


def remove_kept(folder: Path, case: str) -> None:
    """Removes what was kept of a case, the record first."""
    for path in reversed(get_kept_paths(folder, case)):
        path.unlink(missing_ok=True)
