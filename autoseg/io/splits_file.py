"""The user's own folds: our splits.json, or nnU-Net's splits_final.json."""

from pathlib import Path
from typing import Any

import msgspec

from autoseg.errors import InputError
from autoseg.records.splits import Fold, Splits

EXAMPLE = '[{"training": ["case", …], "validation": ["case", …]}, …], or nnU-Net\'s keys: train and val'


class _Ours(msgspec.Struct, forbid_unknown_fields=True):
    training: tuple[str, ...]
    validation: tuple[str, ...] = ()


class _Theirs(msgspec.Struct, forbid_unknown_fields=True):
    train: tuple[str, ...]
    val: tuple[str, ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """splits.json of a run."""

    folds: list[Any]
    format_version: int = 1
    autoseg_version: str = ""


def read_splits(path: Path) -> Splits:
    """The folds in a file. Raises InputError that names file, fold and key; an unknown key is never passed over."""
    try:
        content = msgspec.json.decode(path.read_bytes())
        rows = msgspec.convert(content, _File).folds if isinstance(content, dict) else msgspec.convert(content, list[Any])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} holds no folds: {error}.", todo=EXAMPLE) from None
    if not rows:
        raise InputError(f"{path} holds no folds: its list is empty.", todo=EXAMPLE)
    return Splits(folds=tuple(_read_fold(row, number, path) for number, row in enumerate(rows)))


def _read_fold(row: Any, number: int, path: Path) -> Fold:
    theirs = isinstance(row, dict) and bool({"train", "val"} & set(row))
    try:
        if theirs:
            fold = msgspec.convert(row, _Theirs)
            return Fold(training=fold.train, validation=fold.val)
        own = msgspec.convert(row, _Ours)
        return Fold(training=own.training, validation=own.validation)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}, fold {number}, cannot be read.", f"{error}.", todo=EXAMPLE) from None
