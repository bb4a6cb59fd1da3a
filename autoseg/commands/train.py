"""`autoseg train`: one fold (or each in turn) becomes a model with its score."""

import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from autoseg.commands.evaluate import Labelling, format_scores, save_scores, score_pairs
from autoseg.commands.predict import PredictOptions, predict_cases
from autoseg.commands.prepare import prepare
from autoseg.errors import CasesFailed, InputError
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.summary import summarise
from autoseg.inference.predictor import load_predictor
from autoseg.inference.sliding_window import predict_logits
from autoseg.io.files import load_record, name_full_disk, remove_partials, save_record, write_bytes
from autoseg.io.machine import count_cores
from autoseg.io.run_folder import FoldFolder, RunFolder, choose_configuration
from autoseg.io.store import Store
from autoseg.io.weights import save_tensors
from autoseg.networks.build import export_weights
from autoseg.networks.devices import Compute, choose_device, name_full_memory, use_cores
from autoseg.progress import Progress, Silent
from autoseg.records.base import digest_of
from autoseg.records.dataset import Dataset
from autoseg.records.plan import Configuration, Plan
from autoseg.records.prepared import PreparedCase
from autoseg.records.splits import Fold
from autoseg.records.training import ModelHeader, TrainingSettings, TrainingStatus
from autoseg.report.curves import Curve, draw_curves
from autoseg.training.checkpoints import TrainingState, restore_checkpoint, save_checkpoint
from autoseg.training.loader import Loader
from autoseg.training.log import format_log, read_log
from autoseg.training.precision import time_candidates, time_steps
from autoseg.training.sampling import Sampler
from autoseg.training.schedule import fit_steps
from autoseg.training.signals import listen_to_signals
from autoseg.training.trainer import AveragedWeights, EpochRow, start_state
from autoseg.training.trainer import train as run_training

VALIDATION_CASES = 3  # followed during the training; all are scored at its end
VALIDATIONS = 10
VALIDATION_SHARE = 0.05  # of the time that validations on the way may take
EPOCHS_SHOWN = 20  # rows that even a short training has in its log
CURVES_SECONDS = 60.0


@dataclass(frozen=True)
class TrainOptions:
    """How long and on what to train; the plan decides what is not given."""

    minutes: float | None = None
    epochs: int | None = None
    steps: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    overwrite: bool = False
    workers: int | None = None


@dataclass(frozen=True)
class Job:
    """One fold to train: everything that its steps need."""

    run: RunFolder
    plan: Plan
    dataset: Dataset
    configuration: Configuration
    number: int
    fold: Fold
    folder: FoldFolder
    store: Store
    options: TrainOptions
    progress: Progress

    @property
    def channels(self) -> int:
        return len(self.dataset.channels)

    @property
    def classes(self) -> int:
        return len(self.dataset.classes) + 1


def train(
    run: str | Path,
    fold: int | str,
    configuration: str | None = None,
    options: TrainOptions = TrainOptions(),
    progress: Progress = Silent(),
) -> None:
    """Trains fold 0 … K-1, or "all" in turn; prepares the data when needed; goes on from the last checkpoint.

    Raises InputError for a fold that does not exist or is being trained, Interrupted (75) on SIGINT or SIGTERM after a checkpoint,
    Diverged (5).
    """
    folder = RunFolder(Path(run))
    plan, dataset, splits = folder.load_plan(), folder.load_dataset(), folder.load_splits()
    chosen = choose_configuration(plan, configuration)
    numbers = _list_folds(fold, len(splits.folds))
    device = choose_device(options.device)
    store = prepare(folder.path, chosen.name, options.workers, progress)
    for number in numbers:
        fold_folder = folder.fold(chosen.name, number)
        job = Job(folder, plan, dataset, chosen, number, splits.folds[number], fold_folder, store, options, progress)
        with use_cores(count_cores()), name_full_disk(folder.path), fold_folder.lock():
            _train_fold(job, Compute(device))


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
        return
    if not job.folder.is_finished():
        settings = _settle(job, compute)
        _run(job, settings)
    _validate_whole(job)


def _settle(job: Job, compute: Compute) -> TrainingSettings:
    """The settings of a training that was begun, or new ones: precision and number of steps are measured once and then kept."""
    if job.folder.settings.is_file():
        settings = load_record(TrainingSettings, job.folder.settings)
        _refuse_other_settings(job, settings)
        return settings
    sampler = _make_sampler(job, job.options.seed)
    timed = time_candidates(job.configuration, job.channels, job.classes, Loader(job.store, sampler, compute), job.options.precision)
    if not timed:
        raise InputError(f"Precision {job.options.precision} is not possible on {compute.device}.")
    fastest = next(iter(timed))
    job.progress.say(_describe_candidates(timed), event="precision", precision=fastest.precision, channels_last=fastest.channels_last)
    seconds = time_steps(job.configuration, job.channels, job.classes, Loader(job.store, sampler, fastest))
    steps, validations = _fit_length(job, fastest, seconds)
    settings = TrainingSettings(
        fold=job.number,
        configuration=job.configuration,
        configuration_digest=digest_of(job.configuration),
        steps=steps,
        steps_per_epoch=max(1, min(job.configuration.steps_per_epoch, math.ceil(steps / EPOCHS_SHOWN))),
        validations=validations,
        seed=job.options.seed,
        device=fastest.device,
        precision=fastest.precision,
        channels_last=fastest.channels_last,
        threads=torch.get_num_threads(),
        seconds_per_step=seconds,
        training_digest=digest_of([job.fold, job.dataset.classes, job.dataset.channels]),
    )
    save_record(job.folder.settings, settings)
    return settings


def _refuse_other_settings(job: Job, settings: TrainingSettings) -> None:
    if settings.configuration_digest != digest_of(job.configuration):
        raise InputError(
            f"{job.folder.path} was begun with another plan.", todo="--overwrite trains it anew (the old fold is kept beside it)."
        )
    if settings.training_digest != digest_of([job.fold, job.dataset.classes, job.dataset.channels]):
        raise InputError(
            f"{job.folder.path} was begun with other cases, classes or channels.",
            todo="--overwrite trains it anew (the old fold is kept beside it).",
        )
    asked = job.options.steps
    if asked is not None and asked != settings.steps:
        job.progress.warn(f"The training was begun with {settings.steps} steps and goes on with them, not with {asked}.")


def _describe_candidates(timed: dict[Compute, float]) -> str:
    names = {c: f"{c.precision}{' channels-last' if c.channels_last else ''}" for c in timed}
    fastest, *others = timed
    text = f"{fastest.device}, {torch.get_num_threads()} threads, {names[fastest]}: {timed[fastest]:.3f} s a step"
    return text + "".join(f"; {names[other]} {timed[other]:.3f} s" for other in others)


def _make_sampler(job: Job, seed: int) -> Sampler:
    return Sampler(tuple(job.store.load(case) for case in job.fold.training), job.configuration, seed)


def _fit_length(job: Job, compute: Compute, seconds: float) -> tuple[int, int]:
    """Number of steps, and of validations on the way, from what was asked or planned."""
    options, schedule = job.options, job.configuration.schedule
    cases = _load_followed_cases(job)
    if options.steps is not None:
        return options.steps, min(VALIDATIONS, options.steps) if cases else 0
    if options.minutes is None and (options.epochs is not None or not schedule.minutes):
        return (options.epochs or schedule.epochs) * job.configuration.steps_per_epoch, VALIDATIONS if cases else 0
    minutes = options.minutes if options.minutes is not None else schedule.minutes
    state = start_state(job.configuration, job.channels, job.classes, job.options.seed, compute)
    start = time.monotonic()
    validate_cases(state.network, cases, job, compute)
    each = time.monotonic() - start
    count = min(VALIDATIONS, max(1, int(VALIDATION_SHARE * minutes * 60 / max(each, 1e-3)))) if cases else 0
    return fit_steps(minutes, seconds, count * each), count


def _load_followed_cases(job: Job) -> list[PreparedCase]:
    """A few validation cases, evenly taken from the sorted list."""
    names = job.fold.validation
    count = min(VALIDATION_CASES, len(names))
    return [job.store.load(names[index * len(names) // count]) for index in range(count)]


def validate_cases(network: torch.nn.Module, cases: list[PreparedCase], job: Job, compute: Compute) -> dict[str, float | None]:
    """Dice by class of whole prepared cases, on the network's own grid."""
    rows = []
    for case in cases:
        box = tuple((0, size) for size in case.geometry.prepared_shape)
        logits = predict_logits(network, job.store.read_image(case.case, box), case.background, job.configuration, compute, mirror=False)
        joint = count_joint(logits.argmax(dim=0).numpy(), job.store.read_label(case.case, box), job.classes - 1)
        rows += score_case(case.case, joint, job.dataset.classes, None)
    scores = summarise(rows, job.dataset.classes)
    return {name: intervals["dice"].mean for name, intervals in scores.classes.items()}


@dataclass
class FoldHooks:
    """What the training loop asks of the command: validation, files, the display, and whether to stop."""

    job: Job
    settings: TrainingSettings
    compute: Compute
    cases: list[PreparedCase]
    rows: list[EpochRow] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    drawn: float = 0.0

    def validate(self, network: torch.nn.Module) -> dict[str, float | None]:
        return validate_cases(network, self.cases, self.job, self.compute)

    def finish_step(self, state: TrainingState, loss: float) -> None:
        self.job.progress.advance(f"step {state.step}, loss {loss:.3f}")

    def finish_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)
        defined = [value for value in row.validation.values() if value is not None]
        score = f", validation Dice {sum(defined) / len(defined):.3f}" if defined else ""
        self.job.progress.detail(f"epoch {row.epoch}: step {row.step}, loss {row.loss:.4f}{score}, {row.seconds:.0f} s")
        write_bytes(self.job.folder.log, format_log(self.rows, [label.name for label in self.job.dataset.classes]).encode())
        self.write_status("training", row.step, row.seconds, row.loss)
        if time.monotonic() - self.drawn > CURVES_SECONDS or row.step == self.settings.steps:
            self.draw()
            self.drawn = time.monotonic()

    def draw(self) -> None:
        names = [label.name for label in self.job.dataset.classes]
        loss = [(row.step, row.loss) for row in self.rows]
        rate = [(row.step, row.learning_rate) for row in self.rows]
        scores = [[(row.step, row.validation[n]) for row in self.rows if row.validation.get(n) is not None] for n in names]
        curves = [Curve(n, [s for s, _ in points], [float(v or 0) for _, v in points]) for n, points in zip(names, scores) if points]
        title = f"{self.job.configuration.name}, fold {self.job.number}"
        picture = draw_curves(Curve("loss", *_columns(loss)), Curve("rate", *_columns(rate)), curves, title)
        write_bytes(self.job.folder.curves, picture)

    def write_status(self, state: str, step: int, seconds: float, loss: float | None = None) -> None:
        status = TrainingStatus(
            state=state,  # type: ignore[arg-type]
            step=step,
            steps=self.settings.steps,
            seconds=seconds,
            loss=loss if loss is not None and math.isfinite(loss) else None,
        )
        save_record(self.job.folder.status, status)

    def save(self, state: TrainingState) -> None:
        save_checkpoint(self.job.folder.checkpoints, state, digest_of(self.settings))
        if self.stop.is_set():
            self.write_status("interrupted", state.step, state.seconds)

    def should_stop(self) -> bool:
        return self.stop.is_set()


def _columns(points: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(x) for x, _ in points], [float(y) for _, y in points]


def _run(job: Job, settings: TrainingSettings) -> None:
    compute = Compute(settings.device, settings.precision, settings.channels_last)
    configuration = settings.configuration
    state = start_state(configuration, job.channels, job.classes, settings.seed, compute)
    hooks = FoldHooks(job, settings, compute, _load_followed_cases(job) if settings.validations else [])
    if restore_checkpoint(job.folder.checkpoints, state, digest_of(settings)):
        hooks.rows = read_log(job.folder.log, [label.name for label in job.dataset.classes], state.step)
        job.progress.say(f"Going on with fold {job.number} after step {state.step} of {settings.steps}.", event="resume", step=state.step)
    else:
        job.progress.say(_announce(job, settings), event="train", fold=job.number, steps=settings.steps, seconds=settings.seconds_per_step)
        if not job.fold.validation:
            job.progress.warn("There is one case only: it trains a model, but nothing is left to say how good it is.")
    hooks.write_status("training", state.step, state.seconds)
    loader = Loader(job.store, _make_sampler(job, settings.seed), compute)
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
