"""`autoseg train`: one fold (or each in turn) becomes a model with its score."""

from dataclasses import replace
from pathlib import Path

import msgspec
import torch

from autoseg.commands.fold import FoldHooks
from autoseg.commands.follow import follow
from autoseg.commands.job import Job, TrainOptions, load_course, make_loader, take_up
from autoseg.commands.origin import copy_origin
from autoseg.commands.prepare import prepare
from autoseg.commands.settle import settle
from autoseg.commands.spread import choose_gpus, make_starter, spread
from autoseg.commands.validate import get_metric, load_followed_cases, validate_whole
from autoseg.errors import Diverged, InputError, Interrupted
from autoseg.io.files import load_record, name_full_disk, remove_partials, save_record
from autoseg.io.machine import count_cores
from autoseg.io.run_folder import RunFolder, choose_configuration
from autoseg.io.weights import save_tensors
from autoseg.networks.build import export_weights
from autoseg.networks.devices import Compute, choose_device, name_full_memory, use_cores
from autoseg.planning.check import check_plan
from autoseg.progress import Progress, Silent
from autoseg.records.base import digest_of
from autoseg.records.machine import DeviceName
from autoseg.records.plan import Configuration
from autoseg.records.training import Course, ModelHeader, Rescue, TrainingSettings, TrainingStatus
from autoseg.training.checkpoints import TrainingState, list_checkpoints, restore_checkpoint, save_checkpoint
from autoseg.training.distribution import join_group
from autoseg.training.schedule import extend
from autoseg.training.signals import StopRequest, listen_to_signals
from autoseg.training.trainer import AveragedWeights, start_state
from autoseg.training.trainer import train as run_training

RESCUE_RATE = 0.5  # of the learning rate, where the precision is the safest already


def train(
    run: str | Path,
    fold: int | str,
    configuration: str | None = None,
    options: TrainOptions = TrainOptions(),
    progress: Progress = Silent(),
) -> None:
    """Trains fold 0 … K-1, or "all" in turn (one per GPU where there are several); prepares the data when needed; goes on from the last

    checkpoint.

    Raises InputError for a plan that contradicts itself and for a fold that does not exist or is being trained, Interrupted (75) on
    SIGINT, SIGTERM or SIGUSR1 after a checkpoint, Diverged (5), CasesFailed (3) where one of several folds failed beside others.
    """
    with listen_to_signals() as request:
        try:
            _train_folds(Path(run), fold, configuration, options, progress, request)
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped by a signal.", done="All that was finished is kept.", todo="Type the same command again: it goes on from here."
            ) from None


def _train_folds(
    run: Path, fold: int | str, configuration: str | None, options: TrainOptions, progress: Progress, request: StopRequest
) -> None:
    folder = RunFolder(run)
    plan, dataset, splits = folder.load_plan(), folder.load_dataset(), folder.load_splits()
    check_plan(plan, dataset)
    chosen = choose_configuration(plan, configuration)
    _refuse_untrainable(chosen, options)
    numbers = _list_folds(fold, len(splits.folds))
    device = choose_device(options.device)
    options.distribution.check_device(options.device, device)
    job = Job(folder, plan, dataset, chosen, 0, splits.folds[0], folder.fold(chosen.name, 0), folder.store(chosen.name), options, progress)
    jobs = [replace(job, number=number, fold=splits.folds[number], folder=folder.fold(chosen.name, number)) for number in numbers]
    gpus = choose_gpus(options, device, len(jobs))
    with join_group(options.distribution, device):
        if options.distribution.rank == 0:
            prepare(folder.path, chosen.name, options.workers, progress)
        if gpus:
            spread(numbers, gpus, make_starter(folder.path, chosen.name, device, options), progress, request)
            return
        with use_cores(max(1, count_cores() // options.distribution.size)), name_full_disk(folder.path):
            train_jobs = follow if options.distribution.rank else _lead
            train_jobs(jobs, device, request)


def _lead(jobs: list[Job], device: DeviceName, request: StopRequest) -> None:
    for job in jobs:
        with job.folder.lock():
            _train_fold(job, Compute(device), request)


def _refuse_untrainable(configuration: Configuration, options: TrainOptions) -> None:
    if configuration.product == "objects" and options.distribution.size > 1:
        raise InputError(
            f"{configuration.name} cannot be trained by {options.distribution.size} processes together.",
            "The examples of a Mask R-CNN are drawn from each process's images by themselves.",
            todo="autoseg train RUN --fold all trains one fold on each GPU.",
        )
    if configuration.previous is not None:
        raise InputError(
            f"{configuration.name} is planned, but this version cannot train the second stage of a cascade yet.",
            f"It would refine the masks of {configuration.previous}.",
            todo=f"Train --configuration {configuration.previous} or 3d_fullres.",
        )


def _list_folds(fold: int | str, count: int) -> list[int]:
    if fold == "all":
        return list(range(count))
    try:
        number = int(fold)
    except ValueError:
        raise InputError(f"There is no fold '{fold}'.", f"Folds: 0 … {count - 1}, or all.") from None
    if not 0 <= number < count:
        raise InputError(f"There is no fold {number}.", f"Folds: 0 … {count - 1}, or all.")
    return [number]


def _train_fold(job: Job, compute: Compute, request: StopRequest) -> None:
    remove_partials(job.folder.path)
    if job.options.overwrite:
        job.folder.set_aside()
    if job.options.extend is not None:
        _extend(job, job.options.extend)
    if not _has_final_model(job):
        settings = settle(job, compute)
        job.options.distribution.any(True)  # the others wait in `follow`
        _run(take_up(job, settings), settings, request)
    else:
        job.options.distribution.any(False)
    if _is_finished(job):
        _say_finished(job)
        return
    validate_whole(job)


def _has_final_model(job: Job) -> bool:
    """Whether the model is of the last step: one of before an extension is valid, but not the end."""
    return job.folder.is_finished() and (not job.folder.course.is_file() or job.folder.load_model().steps == load_course(job.folder).end)


def _is_finished(job: Job) -> bool:
    """Whether the final model has been scored, too."""
    return (
        _has_final_model(job)
        and load_record(TrainingStatus, job.folder.status).state == "finished"
        and (not job.fold.validation or (job.folder.validation / "scores.json").is_file())
    )


def _is_extended(course: Course) -> bool:
    return any(leg.kind == "extension" for leg in course.legs)


def _say_finished(job: Job) -> None:
    status = load_record(TrainingStatus, job.folder.status)
    metric = get_metric(job.configuration)
    mean = getattr(status, f"mean_{metric.name}")
    score = f", mean {metric.title} {mean:.3f}" if mean is not None else ""
    job.progress.say(
        f"Fold {job.number} is finished ({status.steps} steps{score}); nothing done.\n"
        f"Next: another fold, autoseg predict {job.run.path} SCANS -o OUT, --extend N for more steps, or --overwrite to train it anew.",
        event="finished",
        fold=job.number,
    )


def _extend(job: Job, steps: int) -> None:
    """Adds steps to a finished fold; its model stays until the extended one is written. An extension that was begun goes on instead."""
    course = load_course(job.folder) if job.folder.settings.is_file() else None
    finished = course is not None and _is_finished(job)
    if course is None or not (finished or _is_extended(course)):
        raise InputError(f"Fold {job.number} is not finished, so it cannot be extended.", todo="The same command without --extend goes on.")
    if not finished:
        job.progress.say(f"Fold {job.number} is being extended to step {course.end} already; going on with that.", event="extend")
        return
    if not any(path.name == f"step_{course.end:09d}.safetensors" for path in list_checkpoints(job.folder.checkpoints)):
        raise InputError(
            f"Fold {job.number} cannot be extended: its last checkpoint is gone.",
            f"There is no step_{course.end:09d}.safetensors in {job.folder.checkpoints}, which holds the optimiser's state.",
            todo=f"Train another run from this model: autoseg train OTHER_RUN --fold {job.number} --init {job.folder.path}",
        )
    save_record(job.folder.course, extend(course, steps))


def _run(job: Job, settings: TrainingSettings, request: StopRequest) -> None:
    job.progress.detail(f"Settings: {job.folder.settings}")
    hooks = FoldHooks(job, settings, load_course(job.folder), load_followed_cases(job) if settings.validations else [], request)
    torch.set_num_threads(settings.threads)  # sums depend on it: a resumption must end bit-equal
    while True:
        state = _resume(job, hooks)
        try:
            _take_steps(job, hooks, state)
            break
        except Diverged as error:
            _rescue(job, hooks, error)
            job.options.distribution.wait()  # until it is written, the others cannot read it
    with AveragedWeights(state) as network:
        _write_model(job, hooks, network)
    hooks.write_status("validating", state.step, state.seconds, hooks.rows[-1].loss if hooks.rows else None)
    job.folder.stop.unlink(missing_ok=True)


def _resume(job: Job, hooks: FoldHooks) -> TrainingState:
    """The state of the last whole checkpoint, or of the start."""
    settings = hooks.settings
    state = start_state(settings.configuration, job.channels, job.classes, settings.seed, hooks.compute)
    restored = restore_checkpoint(job.folder.checkpoints, state, digest_of(settings), job.progress)
    hooks.recall(state.step)
    if not restored and _is_extended(hooks.course):
        raise InputError(
            f"Fold {job.number} cannot be extended: no checkpoint of it is whole.",
            done="Its model is valid.",
            todo=f"Train another run from this model: autoseg train OTHER_RUN --fold {job.number} --init {job.folder.path}",
        )
    if not restored and settings.init is not None:
        copy_origin(job, settings.init, state.network)
        state.average = {name: value.detach().clone() for name, value in state.network.state_dict().items() if name in state.average}
        save_checkpoint(job.folder.checkpoints, state, digest_of(settings))
    if state.step:
        text = f"Going on with fold {job.number} after step {state.step} of {hooks.course.end}."
        job.progress.say(text, event="resume", step=state.step)
    else:
        job.progress.say(_announce(job, settings), event="train", fold=job.number, steps=settings.steps, seconds=settings.seconds_per_step)
        if not job.fold.validation:
            job.progress.warn("There is one case only: it trains a model, but nothing is left to say how good it is.")
    hooks.write_status("training", state.step, state.seconds)
    state.join(job.options.distribution, settings.configuration.loss)
    return state


def _take_steps(job: Job, hooks: FoldHooks, state: TrainingState) -> None:
    loader = make_loader(job, hooks.compute, hooks.settings.seed)
    job.progress.start(f"Training fold {job.number}", hooks.course.end)
    for _ in range(state.step):
        job.progress.advance()
    try:
        with hooks.request.be_patient(True), name_full_memory("a training step", hooks.settings.configuration.memory.training_bytes):
            run_training(state, loader, hooks.settings, hooks.course, hooks.compute, hooks)
    except KeyboardInterrupt:
        hooks.write_status("interrupted", state.step, state.seconds)
        raise
    finally:
        job.progress.finish()


def _rescue(job: Job, hooks: FoldHooks, error: Diverged) -> None:
    """Once, a training that is not finite goes on from its last checkpoint in a safer precision, in float32 at half the learning rate."""
    if hooks.course.rescue is not None:
        raise error
    safer = hooks.compute.precision != "fp32"
    step = next((int(path.stem.removeprefix("step_")) for path in list_checkpoints(job.folder.checkpoints)), 0)
    rescue = Rescue(step=step, precision="fp32", rate=1.0 if safer else RESCUE_RATE, cases=tuple(hooks.skipped))
    how = f"in fp32 instead of {hooks.compute.precision}" if safer else "with half the learning rate"
    hooks.course = msgspec.structs.replace(hooks.course, rescue=rescue)
    save_record(job.folder.course, hooks.course)
    job.progress.warn(f"{error.what} Going back to step {step} and on {how}.", event="rescue", step=step, cases=list(hooks.skipped))


def _announce(job: Job, settings: TrainingSettings) -> str:
    minutes = settings.steps * settings.seconds_per_step / 60
    configuration = settings.configuration
    patch = "x".join(str(edge) for edge in configuration.patch_size)
    return (
        f"Fold {job.number} of {configuration.name}: {len(job.fold.training)} cases train, {len(job.fold.validation)} validate. "
        f"Patch {patch}, batch {configuration.batch_size}, {settings.steps} steps of {settings.seconds_per_step:.2f} s: "
        f"about {minutes:.1f} minutes, then every validation case is predicted whole."
    )


def _write_model(job: Job, hooks: FoldHooks, network: torch.nn.Module) -> None:
    settings = hooks.settings
    digest = save_tensors(job.folder.weights, export_weights(network))
    header = ModelHeader(
        fold=job.number,
        configuration=settings.configuration,
        orientation=job.plan.orientation,
        axes=job.plan.axes,
        dimension=job.dataset.dimension,
        channels=job.dataset.channels,
        classes=job.dataset.classes,
        background_value=job.dataset.background_value,
        ignore_value=job.dataset.ignore_value,
        unit=job.dataset.unit,
        label_pattern=job.dataset.label_pattern,
        weights_digest=digest,
        device=settings.device,
        precision=hooks.compute.precision,
        channels_last=settings.channels_last,
        steps=hooks.course.end,
        training_cases=len(job.fold.training),
    )
    save_record(job.folder.model, header)
