"""Folds of a cross-validation: patients kept together, what only some cases have shared out, and what is wrong with folds of one's own."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import msgspec
import numpy as np

from autoseg.errors import InputError
from autoseg.planning.dealing import SEED, Labels, deal, is_shared_out
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.splits import Fold, Splits

FOLDS = 5
SHOWN = 5  # names in a line
NOTHING: Labels = MappingProxyType({})


def make_splits(dataset: Dataset, folds: int = FOLDS, labels: Labels = NOTHING) -> Splits:
    """`folds` folds over the sorted cases, fewer where there are fewer patients; one case alone trains without validation.

    They are nnU-Net's (shuffled with seed 12345; with groups, even in size) unless these leave a fold without its share of one of `labels`.
    """
    ids = sorted(case.id for case in dataset.cases)
    groups = list_groups(dataset)
    count = min(folds, len(groups))
    if count < 2:
        return Splits(folds=(Fold(training=tuple(ids), validation=()),))
    held_out = _split_evenly(ids, groups, count)
    if not is_shared_out(held_out, labels):
        held_out = deal(list(groups.values()), labels, [[] for _ in range(count)])
    return Splits(folds=tuple(_make_fold(ids, part) for part in held_out))


def list_groups(dataset: Dataset) -> dict[str, list[str]]:
    """Group → its cases, sorted: what must not be torn apart."""
    groups: dict[str, list[str]] = {}
    for case in sorted(dataset.cases, key=lambda case: case.id):
        groups.setdefault(case.group or case.id, []).append(case.id)
    return groups


def _split_evenly(ids: list[str], groups: dict[str, list[str]], count: int) -> list[list[str]]:
    """The validation cases of each fold, sorted."""
    if len(groups) == len(ids):
        order = np.arange(len(ids))
        np.random.RandomState(SEED).shuffle(order)
        return [[ids[place] for place in np.sort(part)] for part in np.array_split(order, count)]
    from sklearn.model_selection import GroupKFold  # late: it takes two seconds, and most plans have no groups

    group_of = {case: group for group, cases in groups.items() for case in cases}
    parts = GroupKFold(count).split(ids, groups=[group_of[case] for case in ids])
    return [[ids[place] for place in part] for _, part in parts]


def _make_fold(ids: Sequence[str], held_out: Collection[str]) -> Fold:
    own = set(held_out)
    return Fold(training=tuple(case for case in ids if case not in own), validation=tuple(sorted(own)))


def list_class_cases(fingerprint: Fingerprint) -> dict[str, frozenset[str]]:
    """The cases that have each class, of the classes that any case has."""
    found: dict[str, set[str]] = {}
    for case in fingerprint.cases:
        for own in case.classes:
            if own.voxels:
                found.setdefault(own.name, set()).add(case.case)
    return {name: frozenset(cases) for name, cases in found.items()}


def make_labels(classes: Labels, words: Mapping[str, str], cases: int) -> dict[str, frozenset[str]]:
    """What folds are to share out: the classes that some of `cases` lack, and each word of the user's column (case → word)."""
    labels = {name: own for name, own in classes.items() if len(own) < cases}
    for word in sorted(set(words.values())):
        labels[f"'{word}'"] = frozenset(case for case, own in words.items() if own == word)
    return labels


def describe_folds(splits: Splits, labels: Labels) -> str:
    """What each fold's validation holds, a line each, the rarest label first."""
    rarest = sorted(labels, key=lambda label: (len(labels[label]), label))
    lines = ["Folds share out what only some cases have:"]
    for number, fold in enumerate(splits.folds):
        counts = [f"{label} {len(labels[label].intersection(fold.validation))}" for label in rarest[:SHOWN]]
        more = f" and {len(rarest) - SHOWN} more" if len(rarest) > SHOWN else ""
        lines.append(f"  fold {number} validates {len(fold.validation)} cases: {', '.join(counts)}{more}")
    return "\n".join(lines)


def list_absences(splits: Splits, classes: Labels) -> list[str]:
    """A line on what folds cannot learn, and one on what they cannot judge."""
    untrained = [
        f"fold {number}: {_shorten(sorted(missing))}"
        for number, fold in enumerate(splits.folds)
        if (missing := [name for name, cases in classes.items() if not cases.intersection(fold.training)])
    ]
    judged = [fold for fold in splits.folds if fold.validation]
    absent = {name: sum(not cases.intersection(fold.validation) for fold in judged) for name, cases in classes.items()}
    unjudged = [f"{name} (in {len(classes[name])} cases) of {count} folds" for name, count in sorted(absent.items()) if count]
    lines = []
    if untrained:
        lines.append(f"Classes that no training case of a fold has, so that its model cannot learn them: {'; '.join(untrained)}.")
    if unjudged:
        lines.append(f"Absent from the validation cases: {_shorten(unjudged)}; the scores there leave it out.")
    return lines


def list_torn(splits: Splits, groups: Sequence[Sequence[str]]) -> list[str]:
    """Each group (of two cases or more) that a fold trains and validates on, in words: the first fold that does."""
    torn = []
    for group in groups:
        for number, fold in enumerate(splits.folds):
            trained, validated = (sorted(set(part).intersection(group)) for part in (fold.training, fold.validation))
            if trained and validated:
                torn.append(f"fold {number} trains on {trained[0]} and validates on {validated[0]}")
                break
    return torn


def list_missing_classes(fingerprint: Fingerprint) -> list[str]:
    """The classes that no case has."""
    known = list_class_cases(fingerprint)
    return sorted({own.name for case in fingerprint.cases for own in case.classes} - known.keys())


def check_splits(splits: Splits, dataset: Dataset, where: str = "the splits") -> None:
    """Raises InputError for unknown cases, a case twice, one that trains and validates in one fold, and an empty training set.

    `where` says in the message where the folds come from.
    """
    known = {case.id for case in dataset.cases}
    for number, fold in enumerate(splits.folds):
        unknown = sorted((set(fold.training) | set(fold.validation)) - known)
        if unknown:
            raise InputError(
                f"Fold {number} of {where} names cases that are not in the data set: {_shorten(unknown)}.",
                f"Its cases are {_shorten(sorted(known))}.",
            )
        both = sorted(set(fold.training) & set(fold.validation))
        if both:
            raise InputError(f"Fold {number} of {where} trains and validates on the same cases: {_shorten(both)}.")
        twice = sorted(case for case, count in Counter((*fold.training, *fold.validation)).items() if count > 1)
        if twice:
            raise InputError(f"Fold {number} of {where} names cases twice: {_shorten(twice)}.")
        if not fold.training:
            raise InputError(f"Fold {number} of {where} trains on nothing.")
    if not splits.folds:
        raise InputError(f"There are no folds in {where}.")


def list_unused(splits: Splits, dataset: Dataset) -> list[str]:
    """The cases that are in no fold."""
    used = {case for fold in splits.folds for case in (*fold.training, *fold.validation)}
    return sorted(case.id for case in dataset.cases if case.id not in used)


def extend_splits(splits: Splits, dataset: Dataset, added: Collection[str], labels: Labels = NOTHING) -> Splits:
    """The folds with the cases `added`, which are of the data set by now: no other case moves.

    A case whose patient is known goes to the fold that validates most of that patient; the others are dealt to the smallest folds. They
    train in all other folds. Where there is one fold alone, all of them train.
    """
    if len(splits.folds) == 1:
        return msgspec.structs.replace(splits, folds=(_join(splits.folds[0], added, ()),))
    held_out = [list(fold.validation) for fold in splits.folds]
    units = []
    for group in list_groups(dataset).values():
        new = [case for case in group if case in added]
        counts = [len(set(group).intersection(own)) for own in held_out]
        if new and any(counts):
            held_out[counts.index(max(counts))] += new
        elif new:
            units.append(new)
    dealt = deal(units, labels, held_out)
    folds = [_join(fold, set(added) - set(own), set(added) & set(own)) for fold, own in zip(splits.folds, dealt, strict=True)]
    return msgspec.structs.replace(splits, folds=tuple(folds))


def _join(fold: Fold, training: Collection[str], validation: Collection[str]) -> Fold:
    return Fold(training=tuple(sorted({*fold.training, *training})), validation=tuple(sorted({*fold.validation, *validation})))


def drop_cases(splits: Splits, removed: Collection[str]) -> Splits:
    """The folds without some cases. Raises InputError where a fold would train on nothing."""
    folds = []
    for number, fold in enumerate(splits.folds):
        training, validation = (tuple(case for case in part if case not in removed) for part in (fold.training, fold.validation))
        if not training:
            raise InputError(f"Without {_shorten(sorted(removed))} fold {number} would train on nothing.", todo="Plan the scans anew.")
        folds.append(Fold(training=training, validation=validation))
    return msgspec.structs.replace(splits, folds=tuple(folds))


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
