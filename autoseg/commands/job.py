"""One fold to train: what is asked for it, and what its steps need."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.arrays.labels import make_membership
from autoseg.errors import InputError
from autoseg.io.files import load_record
from autoseg.io.machine import count_cores
from autoseg.io.run_folder import FoldFolder, RunFolder
from autoseg.io.store import Store
from autoseg.networks.devices import Compute
from autoseg.progress import Progress
from autoseg.records.dataset import Dataset
from autoseg.records.plan import Configuration, Plan, count_network_outputs
from autoseg.records.splits import Fold
from autoseg.records.training import Course, RecipeName, TrainingSettings
from autoseg.training.distribution import ALONE, Distribution
from autoseg.training.loader import Loader
from autoseg.training.reference_loader import ReferenceLoader
from autoseg.training.reference_recipe import refuse_only_ours
from autoseg.training.sampling import Sampler
from autoseg.training.schedule import make_course


@dataclass(frozen=True)
class TrainOptions:
    """How long and on what to train; the plan decides what is not given.

    `patience` ends a training after as many validations without a new best mean Dice; `init` is a model to start from; `extend` adds steps
    to a finished fold. `gpus` are numbers of those visible to this process (empty: all); `distribution` is this process's place among those
    that torchrun started.
    """

    minutes: float | None = None
    epochs: int | None = None
    steps: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    overwrite: bool = False
    workers: int | None = None
    patience: int | None = None
    init: str | Path | None = None
    extend: int | None = None
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
        """Channels of the network's answer."""
        return count_network_outputs(self.configuration, self.dataset.classes)


def take_up(job: Job, settings: TrainingSettings) -> Job:
    """The job with what its settings have fixed."""
    return replace(job, configuration=settings.configuration, options=replace(job.options, augmentation=settings.recipe))


def load_course(folder: FoldFolder) -> Course:
    """The course that was written, or the one that the settings foresee."""
    if folder.course.is_file():
        return load_record(Course, folder.course)
    return make_course(load_record(TrainingSettings, folder.settings).steps)


def make_loader(job: Job, compute: Compute, seed: int) -> Loader:
    """Makes the batches of a fold, or this process's part of them, by the recipe asked for."""
    sampler, options = Sampler(job.fold.training, job.store.load, job.configuration, seed), job.options
    by_region = job.configuration.product == "classes" and job.dataset.regions
    table = torch.from_numpy(make_membership(job.dataset.classes)).to(compute.device) if by_region else None
    cores = max(1, count_cores() // options.distribution.size)
    if options.augmentation == "autoseg":
        return Loader(job.store, sampler, compute, table, 1 if compute.device == "cpu" else cores, options.distribution)
    _refuse_objects(job.configuration)
    refuse_only_ours(job.configuration.augmentation)
    return ReferenceLoader(job.store, sampler, compute, table, options.workers or cores, options.distribution, job.progress.warn)


def _refuse_objects(configuration: Configuration) -> None:
    if configuration.product != "classes":
        raise InputError(
            "The recipe of batchgenerators is not for objects.",
            f"{configuration.name} learns from numbers of objects, which that recipe does not keep apart.",
            todo="Train with --augmentation autoseg.",
        )
