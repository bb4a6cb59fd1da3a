"""One fold in training: what its steps need, and what happens between them."""

import math
import threading
import time
from dataclasses import dataclass, field, replace

import torch

from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.summary import summarise
from autoseg.inference.sliding_window import predict_logits
from autoseg.io.files import save_record, write_bytes
from autoseg.io.machine import count_cores
from autoseg.io.run_folder import FoldFolder, RunFolder
from autoseg.io.store import Store
from autoseg.networks.devices import Compute
from autoseg.progress import Progress
from autoseg.records.base import digest_of
from autoseg.records.dataset import Dataset
from autoseg.records.plan import Configuration, Plan
from autoseg.records.prepared import PreparedCase
from autoseg.records.splits import Fold
from autoseg.records.training import RecipeName, TrainingSettings, TrainingStatus
from autoseg.report.curves import Curve, draw_curves
from autoseg.training.checkpoints import TrainingState, save_checkpoint
from autoseg.training.distribution import ALONE, Distribution
from autoseg.training.loader import Loader
from autoseg.training.log import format_log
from autoseg.training.reference_loader import ReferenceLoader
from autoseg.training.reference_recipe import refuse_only_ours
from autoseg.training.sampling import Sampler
from autoseg.training.trainer import EpochRow

VALIDATION_CASES = 3  # followed during the training; all are scored at its end
CURVES_SECONDS = 60.0


@dataclass(frozen=True)
class TrainOptions:
    """How long and on what to train; the plan decides what is not given. `gpus` are numbers of those visible to this process (empty: all);

    `distribution` is this process's place among those that torchrun started.
    """

    minutes: float | None = None
    epochs: int | None = None
    steps: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    overwrite: bool = False
    workers: int | None = None
    augmentation: RecipeName = "autoseg"
    gpus: tuple[int, ...] = ()
    distribution: Distribution = ALONE


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


def take_up(job: Job, settings: TrainingSettings) -> Job:
    """The job with what its settings have fixed."""
    return replace(job, configuration=settings.configuration, options=replace(job.options, augmentation=settings.recipe))


def make_sampler(job: Job, seed: int) -> Sampler:
    """Draws patches of the training cases."""
    return Sampler(tuple(job.store.load(case) for case in job.fold.training), job.configuration, seed)


def make_loader(job: Job, compute: Compute, seed: int) -> Loader:
    """Makes the batches of a fold, or this process's part of them, by the recipe asked for."""
    sampler, options = make_sampler(job, seed), job.options
    if options.augmentation == "autoseg":
        return Loader(job.store, sampler, compute, options.distribution)
    refuse_only_ours(job.configuration.augmentation)
    workers = options.workers or max(1, count_cores() // options.distribution.size)
    return ReferenceLoader(job.store, sampler, compute, options.distribution, workers, job.progress.warn)


def load_followed_cases(job: Job) -> list[PreparedCase]:
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
        scores = validate_cases(network, self.cases, self.job, self.compute)
        self.job.options.distribution.wait()
        return scores

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
        if self.job.options.distribution.any(self.stop.is_set()):
            self.stop.set()
        return self.stop.is_set()


def _columns(points: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(x) for x, _ in points], [float(y) for _, y in points]
