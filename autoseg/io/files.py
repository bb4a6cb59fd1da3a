"""Files that are either whole or absent, and folders listed without what operating systems leave in them."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from autoseg.errors import CasesFailed, InputError
from autoseg.records.base import AnyRecord, Record, decode, encode
from autoseg.records.prepared import FileStamp

PARTIAL = ".partial-"


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yields a temporary path with the same ending; on success it is synced and renamed to `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with write_aside(path) as partial:
        partial.write_bytes(data)


def save_record(path: Path, record: Record) -> None:
    """Writes a record as readable JSON, whole or not at all."""
    write_bytes(path, encode(record))


def load_record(kind: type[AnyRecord], path: Path) -> AnyRecord:
    """Reads a record strictly. Raises RecordError (file and field named), or InputError where there is no such file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    return decode(kind, data, str(path))


def remove_partials(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder; a living process keeps its own."""
    for partial in folder.rglob(f"{PARTIAL}*"):
        owner = partial.name.removeprefix(PARTIAL).split("-")[0]
        if not (owner.isdigit() and psutil.pid_exists(int(owner))):
            partial.unlink(missing_ok=True)


def list_files(root: Path) -> list[str]:
    """All files below `root` as sorted posix paths relative to it; hidden files and folders and `__MACOSX` are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of several files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest() if hasattr(hashlib, "file_digest") else _digest_of(stream))
    return digest.hexdigest()


def _digest_of(stream) -> bytes:  # type: ignore[no-untyped-def]
    """hashlib.file_digest for Python 3.10, which lacks it."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.digest()


def stamp_files(paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """Size and modification time of files."""
    stamps = []
    for path in paths:
        status = path.stat()
        stamps.append(FileStamp(path=str(path), size=status.st_size, modified_ns=status.st_mtime_ns))
    return tuple(stamps)


@contextmanager
def name_full_disk(folder: Path) -> Iterator[None]:
    """Turns "no space left on device" into a message that says where, how much is free, and that the same command goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        statistics = os.statvfs(folder) if hasattr(os, "statvfs") else None
        free = f"{statistics.f_bavail * statistics.f_frsize / 1e6:.1f} MB are free" if statistics else "the disk is full"
        raise CasesFailed(
            f"There is no space left to write in {folder}.",
            f"On that disk {free}.",
            "Everything written before is whole and stays valid; nothing is half-written.",
            "Free some space and repeat the same command: it goes on where it stopped.",
        ) from error
