"""What the other processes of a torchrun do while the first trains: they take part in its steps; they write, validate and say nothing."""

from dataclasses import dataclass

import torch

from autoseg.commands.job import Job, load_course, make_loader, take_up
from autoseg.errors import Diverged
from autoseg.io.files import load_record
from autoseg.networks.devices import Compute, name_full_memory
from autoseg.records.base import digest_of
from autoseg.records.machine import DeviceName
from autoseg.records.training import Course, TrainingSettings
from autoseg.training.checkpoints import TrainingState, restore_checkpoint
from autoseg.training.distribution import Distribution
from autoseg.training.signals import StopRequest
from autoseg.training.trainer import EpochRow, Pace, Validation, start_state
from autoseg.training.trainer import train as run_training


@dataclass
class FollowerHooks:
    """The loop's hooks of a rank that only computes: what the first rank decides, it is told."""

    distribution: Distribution
    request: StopRequest

    def validate(self, network: torch.nn.Module) -> Validation:
        self.distribution.wait()
        return Validation({}, 0.0)

    def finish_step(self, state: TrainingState, loss: float | None) -> None: ...

    def skip_step(self, step: int, cases: tuple[str, ...]) -> None: ...

    def finish_epoch(self, row: EpochRow) -> None: ...

    def finish_validation(self, step: int, validation: Validation) -> None: ...

    def is_validated(self, step: int) -> bool:
        return self.distribution.any(False)

    def tell_pace(self, pace: Pace) -> None: ...

    def save(self, state: TrainingState) -> None: ...

    def should_stop(self) -> bool:
        return self.distribution.any(self.request.asked.is_set())

    def should_end(self) -> bool:
        return self.distribution.any(False)

    def change_course(self, course: Course) -> None: ...


def follow(jobs: list[Job], device: DeviceName, request: StopRequest) -> None:
    """Takes part on `device` in each fold that the first rank trains, from the settings and the checkpoint that it has left on the disk."""
    for job in jobs:
        if job.options.distribution.any(False):
            settings = load_record(TrainingSettings, job.folder.settings)
            while not _follow_fold(take_up(job, settings), settings, device, request):
                job.options.distribution.wait()  # the first rank writes how the training is rescued


def _follow_fold(job: Job, settings: TrainingSettings, device: DeviceName, request: StopRequest) -> bool:
    """Whether the training came to its end; Diverged where it cannot be rescued (again)."""
    course = load_course(job.folder)
    precision = course.rescue.precision if course.rescue else settings.precision
    compute = Compute(device, precision, settings.channels_last)  # not compiled: the ranks join each other's gradients
    configuration = settings.configuration
    torch.set_num_threads(settings.threads)
    state = start_state(configuration, job.channels, job.classes, settings.seed, compute)
    restore_checkpoint(job.folder.checkpoints, state, digest_of(settings))
    state.join(job.options.distribution, configuration.loss)
    hooks = FollowerHooks(job.options.distribution, request)
    loader = make_loader(job, compute, settings.seed)
    try:
        with request.be_patient(True), name_full_memory("a training step", configuration.memory.training_bytes):
            run_training(state, loader, settings, course, compute, hooks)
    except Diverged:
        if course.rescue is not None:
            raise
        return False
    return True
