"""What all records share: strict parsing at the border, one JSON form, one digest."""

import hashlib
from typing import Any, TypeVar

import msgspec

from autoseg import __version__
from autoseg.errors import RecordError

FORMAT_VERSION = 1


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen value; unknown keys and wrong types are refused when it is read."""


class SavedRecord(Record, frozen=True, kw_only=True):
    """A record with a file of its own in the run folder."""

    format_version: int = FORMAT_VERSION
    autoseg_version: str = __version__


AnyRecord = TypeVar("AnyRecord", bound=Record)


class _Version(msgspec.Struct):
    format_version: int = FORMAT_VERSION
    autoseg_version: str = "unknown"


def encode(record: Record) -> bytes:
    """The record as readable JSON."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decode(kind: type[AnyRecord], data: bytes, source: str) -> AnyRecord:
    """Parses a record strictly.

    `source` names the file in the error message. Raises RecordError that names file, field and what is allowed; a record of a newer
    format is refused before its fields are looked at.
    """
    try:
        version = msgspec.json.decode(data, type=_Version)
        if version.format_version > FORMAT_VERSION:
            raise RecordError(
                f"{source} was written by a newer autoseg ({version.autoseg_version}, format {version.format_version}).",
                f"This is autoseg {__version__}, which reads formats up to {FORMAT_VERSION}.",
                todo="Update autoseg, or plan the run anew in another folder.",
            )
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise RecordError(f"{source} cannot be read as a {kind.__name__}.", _readable(str(error))) from error


def _readable(message: str) -> str:
    """Turns msgspec's `… - at `$.a[0].b`` into `field a[0].b: …`."""
    text, _, place = message.partition(" - at `$")
    return f"Field {place.strip('`').lstrip('.')}: {text}." if place else f"{text}."


def compute_digest(record: Record) -> str:
    """SHA-256 of the record's canonical JSON, without the versions of the format and of the program that wrote it."""
    plain = msgspec.to_builtins(record)
    return digest_of({key: value for key, value in plain.items() if key not in ("format_version", "autoseg_version")})


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON (sorted keys) of plain values or records.

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
