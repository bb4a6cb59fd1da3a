"""A column of a user's CSV file: a word for every case, such as its patient, its site or its scanner."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import InputError

_COLUMN = re.compile(r"(?P<path>.+\.(?:csv|tsv|txt)):(?P<column>[^:]+)\Z", re.IGNORECASE)
_CASE_COLUMNS = ("case", "case_id", "id")
_SEPARATORS = ",;\t"
_SHOWN = 5


@dataclass(frozen=True)
class TableColumn:
    """Case → word for every case asked for; `unknown` are the rows that name none of them."""

    words: dict[str, str]
    unknown: tuple[str, ...] = ()


def is_column(text: str) -> bool:
    """Whether a word means FILE.csv:COLUMN.

    >>> is_column("patients.csv:site"), is_column("C:/data/patients.csv:site"), is_column("^(p[0-9]+)_")
    (True, True, False)
    """
    return _COLUMN.match(text) is not None


def make_absolute(text: str) -> str:
    """FILE.csv:COLUMN with the whole path; any other word as it is."""
    found = _COLUMN.match(text)
    return f"{Path(found['path']).resolve()}:{found['column']}" if found else text


def read_column(text: str, flag: str, cases: Iterable[str]) -> TableColumn:
    """The words of `cases` in FILE.csv:COLUMN, whose cases stand in a column named case, case_id or id, else in the first.

    Columns are separated by what the header has most of: comma, semicolon or tab. Raises InputError that names what is missing.
    """
    found = _COLUMN.match(text)
    if found is None:
        raise InputError(f"{flag} '{text}' is not FILE.csv:COLUMN.", todo=f"{flag} patients.csv:site")
    path, column = Path(found["path"]), found["column"].strip()
    header, rows = _read_rows(path, flag)
    if column not in header:
        raise InputError(f"{path} has no column '{column}'.", f"It has: {', '.join(header)}.", todo=f"{flag} {path}:{header[-1]}")
    key = next((place for place, name in enumerate(header) if name.lower() in _CASE_COLUMNS), 0)
    own = header.index(column)
    words: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        case, word = (row[place].strip() if place < len(row) else "" for place in (key, own))
        if words.setdefault(case, word) != word:
            raise InputError(f"{path} says of case {case} '{words[case]}' and, in row {number}, '{word}' ({column}).")
    return _match(words, sorted(cases), f"{path}, column {column}", flag)


def _read_rows(path: Path, flag: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows that hold anything."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", todo=f"Give {flag} a CSV file and one of its columns.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text.", todo="Save the table as 'CSV UTF-8'.") from None
    first = text.partition("\n")[0]
    rows = [row for row in csv.reader(text.splitlines(), delimiter=max(_SEPARATORS, key=first.count)) if any(map(str.strip, row))]
    if not rows:
        raise InputError(f"{path} is empty.", todo="Its first row names the columns, the others hold a case each.")
    return [name.strip() for name in rows[0]], rows[1:]


def _match(words: dict[str, str], cases: list[str], where: str, flag: str) -> TableColumn:
    missing = [case for case in cases if not words.get(case)]
    unknown = sorted(set(words) - set(cases) - {""})
    if missing:
        why = f"Its rows without a case of the data set: {_shorten(unknown)}." if unknown else "All its rows are cases of the data set."
        raise InputError(
            f"{where}, says nothing of {len(missing)} of {len(cases)} cases: {_shorten(missing)}.",
            why,
            todo=f"Complete the table, or leave the cases out: --exclude {','.join(missing)}",
        )
    return TableColumn({case: words[case] for case in cases}, tuple(unknown))


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def describe_unknown(column: TableColumn, flag: str) -> tuple[str, ...]:
    """A line on rows that name no case, if there are any."""
    rows = list(column.unknown)
    return (f"{len(rows)} rows of the table for {flag} name no case of the data set: {_shorten(rows)}.",) if rows else ()
