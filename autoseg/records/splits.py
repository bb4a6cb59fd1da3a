"""Which cases train and which validate, fold by fold."""

from autoseg.records.base import Record, SavedRecord


class Fold(Record, frozen=True, kw_only=True):
    training: tuple[str, ...]
    validation: tuple[str, ...]


class Splits(SavedRecord, frozen=True, kw_only=True):
    folds: tuple[Fold, ...]
