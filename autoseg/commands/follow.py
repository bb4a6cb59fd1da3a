"""What the other processes of a torchrun do while the first trains: they take part in its steps; they write, validate and say nothing."""

import threading
from dataclasses import dataclass, field

import torch

from autoseg.commands.fold import Job, make_loader, take_up
from autoseg.io.files import load_record
from autoseg.networks.devices import Compute, name_full_memory
from autoseg.records.base import digest_of
from autoseg.records.machine import DeviceName
from autoseg.records.training import TrainingSettings
from autoseg.training.checkpoints import TrainingState, restore_checkpoint
from autoseg.training.distribution import Distribution
from autoseg.training.signals import listen_to_signals
from autoseg.training.trainer import EpochRow, start_state
from autoseg.training.trainer import train as run_training


@dataclass
class FollowerHooks:
    """The loop's hooks of a rank that only computes."""

    distribution: Distribution
    stop: threading.Event = field(default_factory=threading.Event)

    def validate(self, network: torch.nn.Module) -> dict[str, float | None]:
        self.distribution.wait()
        return {}

    def finish_step(self, state: TrainingState, loss: float) -> None: ...

    def finish_epoch(self, row: EpochRow) -> None: ...

    def save(self, state: TrainingState) -> None: ...

    def should_stop(self) -> bool:
        return self.distribution.any(self.stop.is_set())


def follow(jobs: list[Job], device: DeviceName) -> None:
    """Takes part on `device` in each fold that the first rank trains, from the settings and the checkpoint that it has left on the disk."""
    for job in jobs:
        if job.options.distribution.any(False):
            settings = load_record(TrainingSettings, job.folder.settings)
            _follow_fold(take_up(job, settings), settings, device)


def _follow_fold(job: Job, settings: TrainingSettings, device: DeviceName) -> None:
    compute = Compute(device, settings.precision, settings.channels_last)
    configuration = settings.configuration
    state = start_state(configuration, job.channels, job.classes, settings.seed, compute)
    restore_checkpoint(job.folder.checkpoints, state, digest_of(settings))
    state.join(job.options.distribution, configuration.loss.deep_supervision)
    hooks = FollowerHooks(job.options.distribution)
    loader = make_loader(job, compute, settings.seed)
    torch.set_num_threads(settings.threads)
    with listen_to_signals(hooks.stop), name_full_memory("a training step", configuration.memory.training_bytes):
        run_training(state, loader, settings, compute, hooks)
