"""`autoseg prepare`: scans become the arrays that training reads; what is there and still right is kept."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from autoseg.arrays.labels import draw_foreground, draw_objects, draw_positions, encode_labels, make_membership, pack_voxels, select_values
from autoseg.arrays.preparation import measure_background, prepare_image, prepare_label
from autoseg.errors import AutosegError, CasesFailed, InputError
from autoseg.io.files import digest_files, name_full_disk, remove_partials, save_record, stamp_files
from autoseg.io.machine import count_cores
from autoseg.io.run_folder import RunFolder, choose_configuration
from autoseg.io.scans import read_label, read_scan
from autoseg.io.store import Store
from autoseg.parallel import run_cases
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import Case, Dataset
from autoseg.records.plan import Configuration, Plan, preparation_digest
from autoseg.records.prepared import PreparedCase

FOREGROUND_VOXELS = 10_000  # positions kept per case to centre patches on, shared by its classes
MOST_PER_CLASS = 1000
OBJECTS = 128  # per class and case
OBJECT_VOXELS = 8
SEED = 1234


@dataclass(frozen=True)
class PrepareTask:
    """One case for a worker."""

    case: Case
    dataset: Dataset
    plan: Plan
    configuration: Configuration
    store: Store


def prepare(
    run: str | Path,
    configuration: str | None = None,
    workers: int | None = None,
    progress: Progress = Silent(),
) -> Store:
    """Prepares all cases of a run for one configuration; goes on where an earlier call was stopped.

    A case is done again when its files, or a decision that shapes its arrays, have changed. Raises CasesFailed that names what failed.
    """
    folder = RunFolder(Path(run))
    plan, dataset = folder.load_plan(), folder.load_dataset()
    if not all(case.images for case in dataset.cases):
        raise InputError(
            f"{folder.path} was planned from a fingerprint alone: it has no scans to prepare.",
            todo=f"autoseg plan FOLDER_OF_SCANS -o OTHER_RUN --profile {plan.profile}",
        )
    chosen = choose_configuration(plan, configuration)
    store = folder.store(chosen.name)
    store.folder.mkdir(parents=True, exist_ok=True)
    remove_partials(store.folder)
    tasks = [PrepareTask(case, dataset, plan, chosen, store) for case in dataset.cases]
    waiting = [task for task in tasks if _is_stale(task, progress)]
    if not waiting:
        return store
    failed: list[tuple[str, AutosegError]] = []
    progress.start(f"Preparing {chosen.name}", len(waiting))
    for outcome in run_cases(prepare_case, waiting, min(workers or count_cores(), len(waiting))):
        if outcome.error is not None:
            failed.append((outcome.task.case.id, outcome.error))
        progress.advance(outcome.task.case.id)
    progress.finish()
    if failed:
        raise _summarise_failures(failed, len(waiting))
    return store


def _paths(case: Case, dataset: Dataset) -> list[Path]:
    return [Path(dataset.root) / path for path in (*dict.fromkeys(case.images), *([case.label] if case.label else []))]


def _is_stale(task: PrepareTask, progress: Progress) -> bool:
    """Whether a case must be prepared (again); changed files are told to the user."""
    paths = _paths(task.case, task.dataset)
    if not all((task.store.folder / f"{task.case.id}.{part}.b2nd").is_file() for part in ("image", "label")):
        return True
    try:
        record = task.store.load(task.case.id)
        stamps = stamp_files(paths)
    except (AutosegError, OSError):
        return True
    if record.preparation_digest != preparation_digest(task.configuration, task.plan, task.dataset):
        return True
    if record.stamps == stamps:
        return False
    if digest_files(paths) != record.case_digest:
        progress.warn(f"The files of {task.case.id} have changed since they were prepared; they are prepared again.")
        return True
    save_record(task.store.record_path(task.case.id), msgspec.structs.replace(record, stamps=stamps))
    return False


def prepare_case(task: PrepareTask) -> str:
    """Prepares one case and writes it to the store; returns its id. Raises AutosegError that names the file at fault."""
    case, dataset, plan, configuration = task.case, task.dataset, task.plan, task.configuration
    root = Path(dataset.root)
    assert case.label is not None  # discovery leaves images without a label out
    stamps = stamp_files(_paths(case, dataset))
    volume = read_scan([root / path for path in case.images], dataset.channels, plan.orientation)
    values, _ = read_label(root / case.label, plan.orientation)
    try:
        label = encode_labels(values, dataset.classes, dataset.background_value, dataset.ignore_value)
    except ValueError as error:
        raise InputError(f"{root / case.label}: {error}.", todo="Plan the run again: the labels have changed.") from None
    if label.shape != volume.grid.shape:
        raise InputError(f"{root / case.label} has {label.shape} voxels, its image {volume.grid.shape}.", todo="Plan the run again.")
    image, geometry = prepare_image(volume.array, volume.grid.spacing, plan.axes, configuration)
    prepared = prepare_label(label, volume.grid.spacing, plan.axes, configuration, geometry)
    generator = np.random.default_rng(SEED)
    membership = make_membership(dataset.classes)
    drawn = draw_foreground(prepared, membership, min(MOST_PER_CLASS, FOREGROUND_VOXELS // len(membership)), generator)
    objects = [draw_objects(select_values(prepared, np.flatnonzero(own)), OBJECTS, OBJECT_VOXELS, generator) for own in membership]
    labelled = draw_positions(prepared >= 0, MOST_PER_CLASS, generator) if (prepared < 0).any() else np.empty(0, int)
    record = PreparedCase(
        case=case.id,
        case_digest=digest_files(_paths(case, dataset)),
        preparation_digest=preparation_digest(configuration, plan, dataset),
        stamps=stamps,
        geometry=geometry,
        background=measure_background(image),
        foreground=tuple(pack_voxels(voxels) for voxels in drawn),
        objects=tuple(tuple(pack_voxels(voxels) for voxels in found) for found in objects),
        labelled=pack_voxels(labelled),
    )
    with name_full_disk(task.store.folder):
        task.store.write(record, image, prepared)
    return case.id


def _summarise_failures(failed: list[tuple[str, AutosegError]], count: int) -> AutosegError:
    first = failed[0][1]
    names = ", ".join(case for case, _ in failed[:5]) + (" …" if len(failed) > 5 else "")
    if len({error.what for _, error in failed}) == 1:
        what = f"{first.what} ({len(failed)} of {count} cases: {names})"
        return CasesFailed(what, first.why, first.done, first.todo)
    table = "\n".join(f"{case}  {error.what} {error.why}" for case, error in failed)
    return CasesFailed(
        f"{len(failed)} of {count} cases could not be prepared:\n{table}",
        done="The others are prepared.",
        todo=f"Correct the files and repeat the command, or plan again with --exclude {','.join(case for case, _ in failed)}",
    )
