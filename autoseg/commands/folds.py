"""The folds of a new run: dealt, or the user's own; and what is doubtful about them."""

from pathlib import Path

import msgspec

from autoseg.arrays.duplicates import find_duplicates
from autoseg.commands.measure import Measurement
from autoseg.errors import InputError
from autoseg.io.splits_file import read_splits
from autoseg.io.tables import describe_unknown, read_column
from autoseg.planning import splits as rules
from autoseg.planning.dealing import Labels
from autoseg.progress import Progress
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.request import PlanRequest
from autoseg.records.splits import Splits

SHOWN = 5

Alike = list[tuple[str, ...]]  # groups of cases whose images are near-duplicates


def list_alike(measurements: list[Measurement]) -> Alike:
    """Groups of cases whose images show nearly the same."""
    found = find_duplicates([m.signature for m in measurements], [m.shape for m in measurements])
    return [tuple(measurements[place].case.id for place in group) for group in found]


def check_request(request: PlanRequest) -> None:
    """Raises InputError for words that contradict each other, and for a file of folds that cannot be read."""
    given = [flag for flag, word in (("--folds", request.folds), ("--stratify", request.stratify)) if word]
    if request.splits and given:
        raise InputError(f"{given[0]} does not go with --splits, which says itself what the folds are.")
    if request.folds == 1:
        raise InputError("--folds 1 is no cross-validation: nothing would be left to train on.", todo="--folds 2 or more")
    if request.splits:
        read_splits(Path(request.splits))  # before every scan is opened


def group_alike(dataset: Dataset, alike: Alike, progress: Progress) -> Dataset:
    """The data set with near-duplicate images in one group each, so that the folds keep them together.

    As they are where that would leave a single group.
    """
    group_of = {case: group[0] for group in alike for case in group}
    if not alike or len(set(group_of.values())) + len(dataset.cases) - len(group_of) < 2:
        return dataset
    cases = tuple(msgspec.structs.replace(case, group=group_of.get(case.id, case.group)) for case in dataset.cases)
    progress.say(
        f"{len(group_of)} images are near-duplicates of others, in {len(alike)} groups (first: {', '.join(alike[0][:2])}); "
        "each group stays in one fold.",
        event="duplicates",
        images=len(group_of),
        groups=len(alike),
    )
    return msgspec.structs.replace(dataset, cases=cases)


def settle_folds(dataset: Dataset, fingerprint: Fingerprint, request: PlanRequest, as_nnunet: bool, progress: Progress) -> Splits:
    """The folds asked for. Classes that some cases lack are shared out among them, unless they are to be nnU-Net's (`as_nnunet`)."""
    classes = rules.list_class_cases(fingerprint)
    if request.splits:
        splits = read_splits(Path(request.splits))
        rules.check_splits(splits, dataset, request.splits)
    else:
        labels = read_labels(dataset, {} if as_nnunet else classes, request, progress)
        splits = rules.make_splits(dataset, request.folds or rules.FOLDS, labels)
        if labels:
            progress.say(rules.describe_folds(splits, labels), event="folds", folds=len(splits.folds))
        if len(splits.folds) < request.folds:
            progress.warn(f"{len(splits.folds)} folds instead of {request.folds}: there are no more patients (groups) than that.")
    warn_of_absences(splits, fingerprint, progress)
    return splits


def warn_of_absences(splits: Splits, fingerprint: Fingerprint, progress: Progress) -> None:
    """Warns of classes that no case has, and of what folds cannot learn or judge."""
    missing = rules.list_missing_classes(fingerprint)
    if missing:
        progress.warn(f"No case has {', '.join(missing)}: it can be neither learned nor scored. Check --classes.", event="absent")
    for line in rules.list_absences(splits, rules.list_class_cases(fingerprint)):
        progress.warn(line, event="absent")


def read_labels(dataset: Dataset, classes: Labels, request: PlanRequest, progress: Progress) -> dict[str, frozenset[str]]:
    """What the folds are to share out: the classes that some cases lack, and the words of the column asked for."""
    words: dict[str, str] = {}
    if request.stratify:
        column = read_column(request.stratify, "--stratify", [case.id for case in dataset.cases])
        words = column.words
        for line in describe_unknown(column, "--stratify"):
            progress.warn(line)
        if len(set(words.values())) in (1, len(words)):
            kind = "the same" if len(set(words.values())) == 1 else "another"
            progress.warn(f"--stratify has no effect: every case has {kind} word in {request.stratify}.")
            words = {}
    return rules.make_labels(classes, words, len(dataset.cases))


def warn_of_folds(splits: Splits, dataset: Dataset, alike: Alike, progress: Progress) -> None:
    """Warns of patients and near-duplicates torn apart by folds, and of cases in none."""
    groups = [group for group in rules.list_groups(dataset).values() if len(group) > 1]
    torn_apart = {"patients (groups)": rules.list_torn(splits, groups), "groups of near-duplicate images": rules.list_torn(splits, alike)}
    for kind, torn in torn_apart.items():
        if torn:
            shown = "; ".join(torn[:SHOWN]) + (f"; and {len(torn) - SHOWN} more" if len(torn) > SHOWN else "")
            progress.warn(f"{len(torn)} {kind} are torn apart, so that scores will be too good: {shown}.", event="torn", groups=len(torn))
    unused = rules.list_unused(splits, dataset)
    if unused:
        names = ", ".join(unused[:SHOWN]) + (f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else "")
        progress.warn(f"{len(unused)} cases are in no fold: {names}.", event="unused", cases=len(unused))
