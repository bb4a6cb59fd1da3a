"""`autoseg plan RUN --update`: the data set has grown; cases are taken up, folds and plan stay."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from autoseg.arrays.duplicates import find_duplicates
from autoseg.commands.explain import open_run
from autoseg.commands.folds import Alike, read_labels, warn_of_absences, warn_of_folds
from autoseg.commands.measure import Measurement, MeasureTask, make_case_fingerprint, measure, name_files, sign_case
from autoseg.commands.plan import list_problems
from autoseg.errors import InputError
from autoseg.io.discovery import Discovery, Problem, discover
from autoseg.io.files import digest_files, load_record, name_full_disk, remove_partials, save_record
from autoseg.io.machine import count_cores
from autoseg.io.objects import list_case_files
from autoseg.io.profiles import read_profile
from autoseg.io.run_folder import RunFolder
from autoseg.io.tasks import settle_task
from autoseg.parallel import run_cases
from autoseg.planning.drift import list_drift
from autoseg.planning.plan import Request, make_plan
from autoseg.planning.splits import check_splits, drop_cases, extend_splits, list_class_cases
from autoseg.progress import Progress, Silent
from autoseg.records.base import Record, compute_digest
from autoseg.records.dataset import Case, Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.plan import Plan
from autoseg.records.request import PlanRequest
from autoseg.records.splits import Splits

SHOWN = 10


@dataclass(frozen=True)
class State:
    """The records of a run that depend on its cases."""

    dataset: Dataset
    fingerprint: Fingerprint
    splits: Splits
    plan: Plan
    request: PlanRequest


@dataclass(frozen=True)
class Difference:
    """Cases that are new, whose files have changed, and that are gone, against the fingerprint: the last that an update writes."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def update(run: str | Path, exclude: tuple[str, ...] = (), workers: int | None = None, progress: Progress = Silent()) -> Plan:
    """Looks for the run's scans again, where and how they were found, and takes up new, changed and removed cases.

    Old cases stay in their folds; new ones are dealt to them. The plan is kept: what it would decide otherwise is told. Raises InputError
    that lists every problem found; nothing is written then. Killed on the way it leaves a valid run, and the same command goes on.
    """
    folder = open_run(run, "--update")
    _finish_killed(folder)
    old = State(folder.load_dataset(), folder.load_fingerprint(), folder.load_splits(), folder.load_plan(), folder.load_request())
    _refuse(folder, old)
    request = msgspec.structs.replace(old.request, exclude=tuple(sorted({*old.request.exclude, *exclude})))
    found = _discover(old.dataset, request, exclude)
    difference = _compare(found, old)
    measured, problems = measure(_select(found, difference), old.plan.orientation, workers or count_cores(), progress)
    problems = [*found.problems, *problems, *(problem for one in measured for problem in _list_faults(one, old.dataset))]
    if problems:
        raise list_problems(problems, len(found.cases))
    alike = _find_alike(old, found, measured, workers or count_cores())
    as_nnunet = old.plan.profile.startswith("nnunet") and old.dataset.task == "semantic"
    if not (request.groups or request.splits or as_nnunet):  # as in planning
        found = _group_alike(old, found, alike, difference.added)
    new = _make_state(old, found, measured, request, difference, progress)
    if new == old:
        progress.say(f"Nothing has changed: {len(old.dataset.cases)} cases.", event="update", added=0, changed=0, removed=0)
        return old.plan
    _save(folder, old, new)
    warn_of_folds(new.splits, new.dataset, alike, progress)
    _tell(folder, old, new, difference, progress)
    return new.plan


def _finish_killed(folder: RunFolder) -> None:
    """What an update left that was killed: a new fingerprint takes its place if the plan is of it, else it is of no use."""
    if folder.next_fingerprint.is_file():
        if compute_digest(load_record(Fingerprint, folder.next_fingerprint)) == folder.load_plan().fingerprint_digest:
            folder.next_fingerprint.replace(folder.fingerprint)
        else:
            folder.next_fingerprint.unlink()


def _refuse(folder: RunFolder, old: State) -> None:
    root = Path(old.dataset.root)
    if old.fingerprint.summary is not None:
        raise InputError(f"{folder.path} was planned from nnU-Net's fingerprint alone: there are no scans to look for.")
    if not root.is_dir():
        raise InputError(f"The scans of {folder.path} are not there any more: {root} ({folder.dataset}, field root).")
    for path in sorted((folder.path / "models").glob("*/fold_*")):
        number = path.name.removeprefix("fold_")
        if number.isdigit() and folder.fold(path.parent.name, int(number)).is_held():
            raise InputError(f"{path} is being trained; its cases must not change meanwhile.", todo=f"autoseg stop {folder.path}, or wait.")


def _discover(dataset: Dataset, request: PlanRequest, exclude: tuple[str, ...]) -> Discovery:
    """The data set's cases as they lie in its folder now: the patterns, the task and the classes are those of the run."""
    patterns: dict[str, str] = {}
    for channel in dataset.channels:
        if channel.pattern not in patterns.values():
            patterns[channel.name] = channel.pattern
    found = discover(Path(dataset.root), patterns, dataset.label_pattern, request.groups or None, _list_excluded(dataset, request, exclude))
    settled, _ = settle_task(found, dataset.task, ())
    return replace(
        settled,
        label_form=dataset.label_form,
        classes=dataset.classes,
        ignore_value=dataset.ignore_value,
        background_value=dataset.background_value,
    )


def _list_excluded(dataset: Dataset, request: PlanRequest, exclude: tuple[str, ...]) -> tuple[str, ...]:
    """Cases to leave out; of those left out before, only the ones that are still there (discovery refuses others as mistyped)."""
    before = set(request.exclude) - set(exclude)
    if not before:
        return exclude
    plain = {channel.name: channel.pattern for channel in dataset.channels[:1]}
    found = discover(Path(dataset.root), plain, dataset.label_pattern)
    there = {case.id for case in found.cases} | {problem.case for problem in found.problems}
    return (*exclude, *sorted(before & there))


def _compare(found: Discovery, old: State) -> Difference:
    """Every file of a known case is read, for its digest."""
    known = {case.case: case.digest for case in old.fingerprint.cases}
    there = {case.id: case for case in found.cases}
    return Difference(
        added=tuple(sorted(there.keys() - known.keys())),
        changed=tuple(case for case in sorted(known) if case in there and _digest(there[case], found) != known[case]),
        removed=tuple(sorted(known.keys() - there.keys() - {problem.case for problem in found.problems})),
    )


def _digest(case: Case, found: Discovery) -> str:
    return digest_files(list_case_files(case, found.root))


def _select(found: Discovery, difference: Difference) -> Discovery:
    """The discovery with the cases alone that are to be measured."""
    wanted = {*difference.added, *difference.changed}
    return replace(found, cases=tuple(case for case in found.cases if case.id in wanted))


def _list_faults(measurement: Measurement, dataset: Dataset) -> list[Problem]:
    """What of a case does not fit the run: another dimension, other components, values that no class has."""
    case, faults = measurement.case.id, []
    if measurement.dimension != dataset.dimension:
        faults.append(f"it is {measurement.dimension}D, the run's cases are {dataset.dimension}D")
    patterns = [channel.pattern for channel in dataset.channels]
    counts = tuple(patterns.count(pattern) for pattern in dict.fromkeys(patterns))
    if any(own not in (1, count) for own, count in zip(measurement.components, counts, strict=True)):
        faults.append(f"its files have {measurement.components} components, the run's cases {counts}")
    known = {value for label in dataset.classes for value in label.values}
    if dataset.task == "semantic" and set(measurement.values) - known:
        faults.append(f"label values {sorted(set(measurement.values) - known)[:5]} are not among the run's classes {sorted(known)}")
    return [Problem(case, fault) for fault in faults]


def _find_alike(old: State, found: Discovery, measured: list[Measurement], workers: int) -> Alike:
    """Groups of near-duplicate images that a new or changed case is in; of the other cases those of the same shape are opened."""
    shapes = {one.case.id: one.shape for one in measured}
    wanted = set(shapes.values())
    others = {case.case: case.shape for case in old.fingerprint.cases if case.case not in shapes and case.shape in wanted}
    tasks = [MeasureTask(case, found.root, old.plan.orientation) for case in found.cases if case.id in others]
    known = {one.case.id: one.signature for one in measured}
    for outcome in run_cases(sign_case, tasks, max(1, min(workers, len(tasks)))):
        if outcome.result is not None:  # what cannot be opened any more is told where it is used
            known[outcome.task.case.id] = outcome.result
    names = sorted(known)
    groups = find_duplicates([known[name] for name in names], [(shapes | others)[name] for name in names])
    alike = [tuple(names[place] for place in group) for group in groups]
    return [group for group in alike if not shapes.keys().isdisjoint(group)]


def _group_alike(old: State, found: Discovery, alike: Alike, added: tuple[str, ...]) -> Discovery:
    """New cases in the group of an old one that shows nearly the same, so that they come to its fold."""
    groups = {case.id: case.group or case.id for case in old.dataset.cases if case.id not in added}
    chosen = {case: next((groups[own] for own in group if own in groups), group[0]) for group in alike for case in group}
    cases = tuple(
        msgspec.structs.replace(case, group=chosen.get(case.id, case.group)) if case.id in added else case for case in found.cases
    )
    return replace(found, cases=cases)


def _make_state(
    old: State, found: Discovery, measured: list[Measurement], request: PlanRequest, difference: Difference, progress: Progress
) -> State:
    """The records with the cases that there are now; old cases keep their groups."""
    groups = {case.id: case.group for case in old.dataset.cases if case.id not in difference.added}
    digests = {case.case: case.digest for case in old.fingerprint.cases} | {one.case.id: one.case.digest for one in measured}
    cases = tuple(
        msgspec.structs.replace(
            name_files(case, found, old.dataset.channels), group=groups.get(case.id, case.group), digest=digests[case.id]
        )
        for case in sorted(found.cases, key=lambda case: case.id)
    )
    dataset = msgspec.structs.replace(old.dataset, cases=cases)
    ids = {case.id for case in cases}
    records = {case.case: case for case in old.fingerprint.cases if case.case in ids}
    records |= {one.case.id: make_case_fingerprint(one, dataset) for one in measured}
    fingerprint = msgspec.structs.replace(old.fingerprint, cases=tuple(records[case] for case in sorted(records)))
    splits = _extend(old.splits, dataset, fingerprint, (request, difference), progress)
    plan = msgspec.structs.replace(old.plan, dataset_digest=compute_digest(dataset), fingerprint_digest=compute_digest(fingerprint))
    return State(dataset, fingerprint, splits, plan, request)


def _extend(
    splits: Splits, dataset: Dataset, fingerprint: Fingerprint, wanted: tuple[PlanRequest, Difference], progress: Progress
) -> Splits:
    """The folds without the cases that are gone and with the new ones; those that a killed update has dealt already stay."""
    request, difference = wanted
    kept = drop_cases(splits, difference.removed)
    placed = {case for fold in kept.folds for case in (*fold.training, *fold.validation)}
    classes = list_class_cases(fingerprint)
    labels = read_labels(dataset, classes, request, progress) if difference.added else {}
    extended = extend_splits(kept, dataset, set(difference.added) - placed, labels)
    check_splits(extended, dataset)
    if difference.added or difference.changed or difference.removed:
        warn_of_absences(extended, fingerprint, progress)
    return extended


def _save(folder: RunFolder, old: State, new: State) -> None:
    """Writes what has changed so that a kill between any two files leaves a valid run.

    The folds name cases of the data set only: it holds old and new ones while they change. The plan is what the update takes effect with:
    from then on the new fingerprint is read from beside the old one, until it has taken its place.
    """
    remove_partials(folder.path)
    both = {case.id: case for case in (*old.dataset.cases, *new.dataset.cases)}
    union = msgspec.structs.replace(new.dataset, cases=tuple(both[case] for case in sorted(both)))
    records: tuple[tuple[Path, Record], ...] = (
        (folder.dataset, union),
        (folder.splits, new.splits),
        (folder.dataset, new.dataset),
        (folder.request, new.request),
        (folder.next_fingerprint, new.fingerprint),
        (folder.plan, new.plan),
    )
    with name_full_disk(folder.path):
        for path, record in records:
            save_record(path, record)
        folder.next_fingerprint.replace(folder.fingerprint)


def _tell(folder: RunFolder, old: State, new: State, difference: Difference, progress: Progress) -> None:
    """What has changed, which models do not know of it, and what the plan would decide otherwise."""
    lines = [
        f"{len(new.dataset.cases)} cases: {len(difference.added)} new, {len(difference.changed)} changed, {len(difference.removed)} gone"
    ]
    added = set(difference.added)
    for number, fold in enumerate(new.splits.folds):
        own = sorted(added.intersection(fold.validation))
        if own:
            lines.append(f"  fold {number} validates {_shorten(own)}")
    if difference.removed:
        progress.warn(f"Not there any more, and taken out of the folds: {_shorten(difference.removed)}.", event="removed")
    if difference.changed:
        progress.warn(f"Files have changed; these cases are prepared again by the next training: {_shorten(difference.changed)}.")
    models = [
        f"{path.parent.name}/{path.name}" for path in sorted((folder.path / "models").glob("*/fold_*")) if (path / "model.json").is_file()
    ]
    if models:
        lines.append(f"Models stay valid, but were trained before and do not know of this: {', '.join(models)}")
        lines.append(f"To train one anew from where it stands: autoseg train {folder.path} --fold K --overwrite --init {folder.path}")
    drift = _find_drift(old, new)
    if drift:
        todo = f"To decide anew: autoseg plan {new.dataset.root} -o OTHER_RUN"
        progress.warn("\n  ".join(["The plan is kept. On the cases of today it would decide otherwise:", *drift, todo]), event="drift")
    else:
        lines.append("The plan is kept: it would decide the same on the cases of today.")
    lines.append(f"Next: autoseg train {folder.path} --fold 0")
    counts = {"added": len(difference.added), "changed": len(difference.changed), "removed": len(difference.removed)}
    progress.say("\n".join(lines), event="update", **counts)


def _find_drift(old: State, new: State) -> list[str]:
    """Both plans made anew, as what the user has set in the one that is kept is no drift."""
    asked = new.request
    profile = read_profile(asked.profile if asked.profile.endswith(".json") else new.plan.profile)
    request = Request(asked.minutes, asked.spacing, asked.memory)
    before, after = (make_plan(own.dataset, own.fingerprint, profile, new.plan.machine, request) for own in (_match(old), new))
    return list_drift(before, after)


def _match(old: State) -> State:
    """The state with the cases of its fingerprint: a killed update may have written the data set already."""
    measured = {case.case for case in old.fingerprint.cases}
    known = {case.id: case for case in old.dataset.cases if case.id in measured}
    missing = [Case(id=case, images=()) for case in sorted(measured - known.keys())]
    return replace(old, dataset=msgspec.structs.replace(old.dataset, cases=(*known.values(), *missing)))


def _shorten(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
