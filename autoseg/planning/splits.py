"""Folds of a cross-validation, patients kept together."""

import numpy as np

from autoseg.errors import InputError
from autoseg.records.dataset import Dataset
from autoseg.records.splits import Fold, Splits

FOLDS = 5
SEED = 12345  # the reference's, so that its folds and ours are the same


def make_splits(dataset: Dataset, folds: int = FOLDS) -> Splits:
    """`folds` folds over the sorted cases, fewer where there are fewer patients; one case alone trains without validation."""
    ids = np.array(sorted(case.id for case in dataset.cases))
    group_of = {case.id: case.group or case.id for case in dataset.cases}
    groups = np.array([group_of[case] for case in ids])
    count = min(folds, len(set(groups)))
    if count < 2:
        return Splits(folds=(Fold(training=tuple(map(str, ids)), validation=()),))
    if len(set(groups)) == len(ids):
        order = np.arange(len(ids))
        np.random.RandomState(SEED).shuffle(order)
        held_out = [np.sort(part) for part in np.array_split(order, count)]
    else:
        from sklearn.model_selection import GroupKFold  # late: it takes two seconds, and most plans have no groups

        held_out = [part for _, part in GroupKFold(count).split(ids, groups=groups)]
    return Splits(folds=tuple(_make_fold(ids, part) for part in held_out))


def _make_fold(ids: np.ndarray, held_out: np.ndarray) -> Fold:
    training = np.delete(ids, held_out)
    return Fold(training=tuple(map(str, training)), validation=tuple(map(str, ids[held_out])))


def check_splits(splits: Splits, dataset: Dataset) -> None:
    """Raises InputError for unknown cases, a case that trains and validates in one fold, and an empty training set."""
    known = {case.id for case in dataset.cases}
    for number, fold in enumerate(splits.folds):
        unknown = sorted((set(fold.training) | set(fold.validation)) - known)
        if unknown:
            raise InputError(f"Fold {number} of the splits names cases that are not in the data set: {', '.join(unknown[:5])}.")
        both = sorted(set(fold.training) & set(fold.validation))
        if both:
            raise InputError(f"Fold {number} of the splits trains and validates on the same cases: {', '.join(both[:5])}.")
        if not fold.training:
            raise InputError(f"Fold {number} of the splits trains on nothing.")
    if not splits.folds:
        raise InputError("The splits have no folds.")
