"""What a training fixes before its first step: what fits, the fastest precision, the number of steps."""

import math
import time
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from autoseg.commands.job import Job, make_loader
from autoseg.commands.origin import try_source
from autoseg.commands.validate import load_followed_cases, validate_cases
from autoseg.errors import InputError, OutOfMemory
from autoseg.io.files import load_record, save_record
from autoseg.networks.devices import Compute, name_full_memory
from autoseg.planning.fallback import step_down
from autoseg.records.base import digest_of
from autoseg.records.plan import Configuration
from autoseg.records.training import TrainingSettings
from autoseg.training.precision import time_candidates, time_steps, time_threads
from autoseg.training.schedule import fit_steps
from autoseg.training.trainer import start_state

VALIDATIONS = 10
VALIDATION_SHARE = 0.05  # of the time that validations on the way may take
EPOCHS_SHOWN = 20  # rows that even a short training has in its log


def settle(job: Job, compute: Compute) -> TrainingSettings:
    """The settings of a training that was begun, or new ones: patch, precision and number of steps are measured once and then kept."""
    if job.folder.settings.is_file():
        settings = load_record(TrainingSettings, job.folder.settings)
        _refuse_other_settings(job, settings)
        return settings
    planned = job.configuration
    origin = try_source(job, Path(job.options.init)) if job.options.init is not None else None
    job, timed = _take_first_steps(job, compute)
    if not timed:
        raise InputError(f"Precision {job.options.precision} is not possible on {compute.device}.")
    fastest = next(iter(timed))
    threads = _choose_threads(job, fastest)
    torch.set_num_threads(threads)
    job.progress.say(_describe_candidates(timed), event="precision", precision=fastest.precision, channels_last=fastest.channels_last)
    seconds = time_steps(job.configuration, job.channels, job.classes, make_loader(job, fastest, job.options.seed))
    steps, validations = _fit_length(job, fastest, seconds)
    settings = TrainingSettings(
        fold=job.number,
        configuration=job.configuration,
        configuration_digest=digest_of(planned),
        steps=steps,
        steps_per_epoch=max(1, min(job.configuration.steps_per_epoch, math.ceil(steps / EPOCHS_SHOWN))),
        validations=validations,
        seed=job.options.seed,
        device=fastest.device,
        precision=fastest.precision,
        channels_last=fastest.channels_last,
        threads=threads,
        seconds_per_step=seconds,
        training_digest=digest_of([job.fold, job.dataset.classes, job.dataset.channels]),
        patience=job.options.patience,
        init=origin,
        recipe=job.options.augmentation,
        compiled=fastest.compiled,
    )
    save_record(job.folder.settings, settings)
    return settings


def _take_first_steps(job: Job, compute: Compute) -> tuple[Job, dict[Compute, float]]:
    """Real steps in every precision that is possible; where the memory is full the batch, then the patch is made smaller."""
    while True:
        configuration = job.configuration
        job.options.distribution.check_batch(configuration.batch_size)
        loader = make_loader(job, compute, job.options.seed)
        try:
            with name_full_memory("a training step", configuration.memory.training_bytes):
                return job, time_candidates(configuration, job.channels, job.classes, loader, job.options.precision)
        except OutOfMemory:
            smaller = step_down(configuration)
            if smaller is None:
                raise
            job.progress.warn(_describe_step_down(configuration, smaller), event="smaller", batch_size=smaller.batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        job = replace(job, configuration=smaller)


def _describe_step_down(before: Configuration, after: Configuration) -> str:
    def name(configuration: Configuration) -> str:
        return f"patch {'x'.join(map(str, configuration.patch_size))}, batch {configuration.batch_size}"

    return (
        f"A training step with {name(before)} does not fit into the memory (planned: {before.memory.training_bytes / 1e9:.2g} GB). "
        f"Going on with {name(after)}; settings.json records it."
    )


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
    if job.options.init is not None and settings.init is None:
        raise InputError(
            f"{job.folder.path} was begun without --init.", todo="--overwrite trains it anew (the old fold is kept beside it)."
        )
    if job.options.patience is not None and job.options.patience != settings.patience:
        job.progress.warn(f"The training was begun with patience {settings.patience or 'off'} and goes on so.")
    asked = job.options.steps
    if asked is not None and asked != settings.steps:
        job.progress.warn(f"The training was begun with {settings.steps} steps and goes on with them, not with {asked}.")


def _choose_threads(job: Job, compute: Compute) -> int:
    """All cores, or one thread for each two that share one where that is as fast."""
    count = torch.get_num_threads()
    physical = min(count, psutil.cpu_count(logical=False) or count)
    if compute.device != "cpu" or physical == count:
        return count
    loader = make_loader(job, compute, job.options.seed)
    return next(iter(time_threads(job.configuration, job.channels, job.classes, loader, (physical, count))))


def _describe_candidates(timed: dict[Compute, float]) -> str:
    names = {c: f"{c.precision}{' channels-last' if c.channels_last else ''}{' compiled' if c.compiled else ''}" for c in timed}
    fastest, *others = timed
    slowest = max(seconds for seconds in timed.values() if math.isfinite(seconds))
    text = f"{fastest.device}, {torch.get_num_threads()} threads, {names[fastest]}: {timed[fastest]:.3f} s a step"
    gain = f", {slowest / timed[fastest]:.1f} times as fast as the slowest" if others else ""
    told = {c: f"{seconds:.3f} s" if math.isfinite(seconds) else "does not start" for c, seconds in timed.items()}
    return text + gain + "".join(f"; {names[other]} {told[other]}" for other in others)


def _fit_length(job: Job, compute: Compute, seconds: float) -> tuple[int, int]:
    """Number of steps, and of validations on the way, from what was asked or planned."""
    options, schedule = job.options, job.configuration.schedule
    cases = load_followed_cases(job)
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
