"""`autoseg prepare`: scans become the arrays that training reads; what is there and still right is kept."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from autoseg.arrays.labels import draw_foreground, draw_objects, draw_positions, encode_labels, make_membership, pack_voxels, select_values
from autoseg.arrays.objects import count_ids, draw_ids, look_up_classes
from autoseg.arrays.preparation import measure_background, prepare_ids, prepare_image, prepare_label
from autoseg.errors import AutosegError, CasesFailed, InputError
from autoseg.io.files import digest_files, name_full_disk, remove_partials, save_record, stamp_files
from autoseg.io.machine import count_cores
from autoseg.io.objects import list_case_files, read_labels, read_objects
from autoseg.io.run_folder import RunFolder, choose_configuration
from autoseg.io.scans import read_scan
from autoseg.io.store import Store
from autoseg.parallel import run_cases
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import Case, Dataset
from autoseg.records.grid import Grid
from autoseg.records.plan import Configuration, Plan, preparation_digest
from autoseg.records.prepared import Geometry, PreparedCase

FOREGROUND_VOXELS = 10_000  # positions kept per case to centre patches on, shared by its classes
MOST_PER_CLASS = 1000
OBJECTS = 128  # per class and case
INSTANCES = 1024  # per case of an instance task, where a patch is centred on each object alike
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
    lost: dict[str, int] = {}
    progress.start(f"Preparing {chosen.name}", len(waiting))
    for outcome in run_cases(prepare_case, waiting, min(workers or count_cores(), len(waiting))):
        if outcome.result:
            lost[outcome.task.case.id] = len(outcome.result)
        if outcome.error is not None:
            failed.append((outcome.task.case.id, outcome.error))
        progress.advance(outcome.task.case.id)
    progress.finish()
    if lost:
        first = min(lost)
        progress.warn(
            f"{sum(lost.values())} objects of {len(lost)} cases have no voxel in {chosen.name}: too small, or where the image is 0 "
            f"(first: {first}, {lost[first]})."
        )
    if failed:
        raise _summarise_failures(failed, len(waiting))
    return store


def _is_stale(task: PrepareTask, progress: Progress) -> bool:
    """Whether a case must be prepared (again); changed files are told to the user."""
    if not all((task.store.folder / f"{task.case.id}.{part}.b2nd").is_file() for part in ("image", "label")):
        return True
    try:
        record = task.store.load(task.case.id)
        paths = list_case_files(task.case, Path(task.dataset.root))
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


@dataclass(frozen=True)
class PreparedLabel:
    """A prepared label map, and voxels of it to centre patches on; `lost` are objects that it does not show any more."""

    label: np.ndarray
    foreground: list[np.ndarray]
    objects: list[list[np.ndarray]]
    object_classes: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()


def prepare_case(task: PrepareTask) -> tuple[int, ...]:
    """Prepares one case and writes it to the store; returns the ids that were lost. Raises AutosegError that names the file at fault."""
    case, dataset, plan, configuration = task.case, task.dataset, task.plan, task.configuration
    root = Path(dataset.root)
    paths = list_case_files(case, root)
    stamps = stamp_files(paths)
    volume = read_scan([root / path for path in case.images], dataset.channels, plan.orientation)
    image, geometry = prepare_image(volume.array, volume.grid.spacing, plan.axes, configuration)
    prepare_one = _prepare_objects if dataset.task == "instance" else _prepare_classes
    generator = np.random.default_rng(SEED)
    found = prepare_one(task, volume.grid, geometry, generator)
    labelled = draw_positions(found.label >= 0, MOST_PER_CLASS, generator) if (found.label < 0).any() else np.empty(0, int)
    record = PreparedCase(
        case=case.id,
        case_digest=digest_files(paths),
        preparation_digest=preparation_digest(configuration, plan, dataset),
        stamps=stamps,
        geometry=geometry,
        background=measure_background(image),
        foreground=tuple(pack_voxels(voxels) for voxels in found.foreground),
        objects=tuple(tuple(pack_voxels(voxels) for voxels in own) for own in found.objects),
        labelled=pack_voxels(labelled),
        object_classes=found.object_classes,
        object_voxels=count_ids(found.label, len(found.object_classes)),
    )
    with name_full_disk(task.store.folder):
        task.store.write(record, image, found.label)
    return found.lost


def _prepare_classes(task: PrepareTask, grid: Grid, geometry: Geometry, generator: np.random.Generator) -> PreparedLabel:
    """The classes of one case on the voxels of its prepared image; `grid` is the scan's."""
    dataset, path = task.dataset, _label_path(task)
    values, _ = read_labels(path, task.plan.orientation)
    try:
        label = encode_labels(values, dataset.classes, dataset.background_value, dataset.ignore_value)
    except ValueError as error:
        raise InputError(f"{path}: {error}.", todo="Plan the run again: the labels have changed.") from None
    _check_shape(label, grid, path)
    prepared = prepare_label(label, grid.spacing, task.plan.axes, task.configuration, geometry)
    membership = make_membership(dataset.classes)
    drawn = draw_foreground(prepared, membership, _count_per_class(len(membership)), generator)
    objects = [draw_objects(select_values(prepared, np.flatnonzero(own)), OBJECTS, OBJECT_VOXELS, generator) for own in membership]
    return PreparedLabel(prepared, drawn, objects)


def _prepare_objects(task: PrepareTask, grid: Grid, geometry: Geometry, generator: np.random.Generator) -> PreparedLabel:
    """The objects of one case, told apart, on the voxels of its prepared image; `grid` is the scan's."""
    case, dataset, path = task.case, task.dataset, _label_path(task)
    beside = Path(dataset.root) / case.object_classes if case.object_classes else None
    found = read_objects(path, dataset.label_form, dataset.classes, task.plan.orientation, beside, dataset.ignore_value)
    _check_shape(found.ids, grid, path)
    ids = prepare_ids(found.ids, grid.spacing, task.plan.axes, task.configuration, geometry)
    membership = make_membership(dataset.classes)
    drawn = draw_foreground(look_up_classes(ids, found.classes), membership, _count_per_class(len(membership)), generator)
    own = draw_ids(ids, INSTANCES, OBJECT_VOXELS, generator)
    objects = [[own[k] for k in own if found.classes[k - 1] == number] for number in range(1, len(membership) + 1)]
    left = np.bincount(np.maximum(ids, 0).ravel(), minlength=len(found.classes) + 1)[1:]
    return PreparedLabel(ids, drawn, objects, found.classes, tuple(int(place) + 1 for place in np.flatnonzero(left == 0)))


def _label_path(task: PrepareTask) -> Path:
    assert task.case.label is not None  # discovery leaves images without a label out
    return Path(task.dataset.root) / task.case.label


def _check_shape(label: np.ndarray, grid: Grid, path: Path) -> None:
    if label.shape != grid.shape:
        raise InputError(f"{path} has {label.shape} voxels, its image {grid.shape}.", todo="Plan the run again.")


def _count_per_class(classes: int) -> int:
    return min(MOST_PER_CLASS, FOREGROUND_VOXELS // classes)


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
