"""`autoseg train`: one fold (or each in turn) becomes a model with its score."""

from dataclasses import replace
from pathlib import Path

import torch

from autoseg.commands.evaluate import Labelling, format_scores, save_scores, score_pairs
from autoseg.commands.fold import FoldHooks, Job, TrainOptions, load_followed_cases, make_loader, take_up
from autoseg.commands.follow import follow
from autoseg.commands.predict import PredictOptions, predict_cases
from autoseg.commands.prepare import prepare
from autoseg.commands.settle import settle
from autoseg.commands.spread import choose_gpus, make_starter, spread
from autoseg.errors import CasesFailed, InputError
from autoseg.inference.predictor import load_predictor
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
from autoseg.records.training import ModelHeader, TrainingSettings, TrainingStatus
from autoseg.training.checkpoints import restore_checkpoint
from autoseg.training.distribution import join_group
from autoseg.training.log import read_log
from autoseg.training.signals import listen_to_signals
from autoseg.training.trainer import AveragedWeights, start_state
from autoseg.training.trainer import train as run_training


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
    SIGINT or SIGTERM after a checkpoint, Diverged (5),
    CasesFailed (3) where one of several folds failed beside others.
    """
    folder = RunFolder(Path(run))
    plan, dataset, splits = folder.load_plan(), folder.load_dataset(), folder.load_splits()
    check_plan(plan, dataset)
    chosen = choose_configuration(plan, configuration)
    _refuse_untrainable(chosen)
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
            spread(numbers, gpus, make_starter(folder.path, chosen.name, device, options), progress)
            return
        with use_cores(max(1, count_cores() // options.distribution.size)), name_full_disk(folder.path):
            train_jobs = follow if options.distribution.rank else _lead
            train_jobs(jobs, device)


def _lead(jobs: list[Job], device: DeviceName) -> None:
    for job in jobs:
        with job.folder.lock():
            _train_fold(job, Compute(device))


def _refuse_untrainable(configuration: Configuration) -> None:
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


def _train_fold(job: Job, compute: Compute) -> None:
    remove_partials(job.folder.path)
    if job.options.overwrite:
        job.folder.set_aside()
    if job.folder.is_finished() and _is_validated(job):
        status = load_record(TrainingStatus, job.folder.status)
        score = f", mean Dice {status.mean_dice:.3f}" if status.mean_dice is not None else ""
        job.progress.say(
            f"Fold {job.number} is finished ({status.steps} steps{score}); nothing done.\n"
            f"Next: another fold, autoseg predict {job.run.path} SCANS -o OUT, or --overwrite to train it anew.",
            event="finished",
            fold=job.number,
        )
        job.options.distribution.any(False)
        return
    if not job.folder.is_finished():
        settings = settle(job, compute)
        job.options.distribution.any(True)  # the others wait in `follow`
        _run(take_up(job, settings), settings)
    else:
        job.options.distribution.any(False)
    _validate_whole(job)


def _run(job: Job, settings: TrainingSettings) -> None:
    compute = Compute(settings.device, settings.precision, settings.channels_last)
    configuration = settings.configuration
    state = start_state(configuration, job.channels, job.classes, settings.seed, compute)
    hooks = FoldHooks(job, settings, compute, load_followed_cases(job) if settings.validations else [])
    if restore_checkpoint(job.folder.checkpoints, state, digest_of(settings)):
        hooks.rows = read_log(job.folder.log, [label.name for label in job.dataset.classes], state.step)
        job.progress.say(f"Going on with fold {job.number} after step {state.step} of {settings.steps}.", event="resume", step=state.step)
    else:
        job.progress.say(_announce(job, settings), event="train", fold=job.number, steps=settings.steps, seconds=settings.seconds_per_step)
        if not job.fold.validation:
            job.progress.warn("There is one case only: it trains a model, but nothing is left to say how good it is.")
    hooks.write_status("training", state.step, state.seconds)
    state.join(job.options.distribution, configuration.loss.deep_supervision)
    loader = make_loader(job, compute, settings.seed)
    job.progress.start(f"Training fold {job.number}", settings.steps)
    for _ in range(state.step):
        job.progress.advance()
    torch.set_num_threads(settings.threads)  # sums depend on it: a resumption must end bit-equal
    with listen_to_signals(hooks.stop), name_full_memory("a training step", configuration.memory.training_bytes):
        run_training(state, loader, settings, compute, hooks)
    job.progress.finish()
    with AveragedWeights(state) as network:
        _write_model(job, settings, network)
    hooks.write_status("validating", settings.steps, state.seconds, hooks.rows[-1].loss if hooks.rows else None)


def _announce(job: Job, settings: TrainingSettings) -> str:
    minutes = settings.steps * settings.seconds_per_step / 60
    configuration = settings.configuration
    patch = "x".join(str(edge) for edge in configuration.patch_size)
    return (
        f"Fold {job.number} of {configuration.name}: {len(job.fold.training)} cases train, {len(job.fold.validation)} validate. "
        f"Patch {patch}, batch {configuration.batch_size}, {settings.steps} steps of {settings.seconds_per_step:.2f} s: "
        f"about {minutes:.1f} minutes, then every validation case is predicted whole."
    )


def _write_model(job: Job, settings: TrainingSettings, network: torch.nn.Module) -> None:
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
        precision=settings.precision,
        channels_last=settings.channels_last,
        steps=settings.steps,
        training_cases=len(job.fold.training),
    )
    save_record(job.folder.model, header)


def _is_validated(job: Job) -> bool:
    return not job.fold.validation or (job.folder.validation / "scores.json").is_file()


def _validate_whole(job: Job) -> None:
    """Predicts the fold's validation cases from their scans, exactly as `predict` does, and scores them."""
    mean = None
    if job.fold.validation:
        predictor = load_predictor([job.folder], choose_device(job.options.device))
        wanted = set(job.fold.validation)
        cases = [case for case in job.dataset.cases if case.id in wanted]
        scans = {case.id: tuple(Path(job.dataset.root) / path for path in case.images) for case in cases}
        manifest = predict_cases(predictor, scans, job.folder.validation, (job.number,), PredictOptions(), job.progress)
        failed = [case for case in manifest.cases if case.state == "failed"]
        if failed:
            raise CasesFailed(f"{len(failed)} validation cases could not be predicted: {failed[0].message}", done="The model is written.")
        references = {case.id: Path(job.dataset.root) / (case.label or "") for case in cases}
        pairs = {case.case: (job.folder.validation / case.mask, references[case.case]) for case in manifest.cases}
        labelling = Labelling(job.dataset.classes, job.dataset.background_value, job.dataset.ignore_value, job.dataset.unit)
        scores = score_pairs(pairs, labelling, job.options.workers, job.progress)
        save_scores(scores, job.folder.validation / "scores.json")
        job.progress.say(format_scores(scores, f"Fold {job.number}, {len(cases)} validation cases"), event="scores", mean=scores.mean)
        mean = scores.mean["dice"]
    header = job.folder.load_model()
    seconds = load_record(TrainingStatus, job.folder.status).seconds
    status = TrainingStatus(state="finished", step=header.steps, steps=header.steps, seconds=seconds, mean_dice=mean)
    save_record(job.folder.status, status)
    job.progress.say(
        f"Model: {job.folder.path}\nNext: autoseg predict {job.run.path} SCANS -o OUT", event="model", folder=str(job.folder.path)
    )
