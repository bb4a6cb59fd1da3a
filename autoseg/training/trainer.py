"""The loop: one step after the other, and what happens between them."""

import contextlib
import itertools
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from autoseg.errors import Diverged, Interrupted
from autoseg.networks.build import build_network
from autoseg.networks.devices import Compute
from autoseg.records.plan import Configuration, OptimizerSpec
from autoseg.records.training import Course, TrainingSettings
from autoseg.training.checkpoints import TrainingState
from autoseg.training.loader import Batch, Loader
from autoseg.training.objectives import Step, compute_objective
from autoseg.training.schedule import bring_to_end, compute_course_average, compute_course_factor

MOST_BAD_STEPS = 3  # in a row with a loss or gradient that is not finite
CHECKPOINT_SECONDS = 120.0
READ_SECONDS = 1.0  # between two readings of the losses that a GPU keeps: reading waits for it
PACE_STEPS = 20  # after which the pace is told
LARGEST_SEED = 2**63


@dataclass(frozen=True)
class Validation:
    """The score of each class on whole validation cases (None where undefined): Dice, of objects AP_cell at an IoU of .5; and the share

    of their voxels that is predicted as foreground.
    """

    scores: dict[str, float | None]
    foreground: float


@dataclass(frozen=True)
class EpochRow:
    """One line of log.csv: mean training loss of the epoch, learning rate at its end, validation where it was measured."""

    epoch: int
    step: int
    seconds: float
    learning_rate: float
    loss: float
    validation: dict[str, float | None]
    foreground: float | None = None

    @property
    def mean_score(self) -> float | None:
        """Over the classes for which it is defined."""
        defined = [value for value in self.validation.values() if value is not None]
        return sum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, the share of them that waited for data, and the steps and seconds until the last step."""

    seconds_per_step: float
    waiting: float
    steps_left: int

    @property
    def seconds_left(self) -> float:
        return self.steps_left * self.seconds_per_step


class Hooks(Protocol):
    """What the loop tells and asks its owner."""

    def validate(self, network: torch.nn.Module) -> Validation:
        """Whole validation cases, predicted by the averaged network."""

    def finish_step(self, state: TrainingState, loss: float | None) -> None:
        """A step is done; its loss, where it has been read."""

    def skip_step(self, step: int, cases: tuple[str, ...]) -> None:
        """A step changed nothing, as its loss or gradient was not finite."""

    def finish_epoch(self, row: EpochRow) -> None: ...

    def finish_validation(self, step: int, validation: Validation) -> None: ...

    def is_validated(self, step: int) -> bool: ...

    def tell_pace(self, pace: Pace) -> None: ...

    def save(self, state: TrainingState) -> None: ...

    def should_stop(self) -> bool:
        """Whether to leave at once: the same command goes on."""

    def should_end(self) -> bool:
        """Whether to bring the learning rate to its end."""

    def change_course(self, course: Course) -> None:
        """Keeps a new course before it takes effect."""


def build_optimizer(network: torch.nn.Module, spec: OptimizerSpec, fused: bool = False) -> torch.optim.Optimizer:
    """AdamW (Loshchilov 2019, arXiv 1711.05101) or SGD with Nesterov momentum; no weight decay on norms and biases.

    `fused` optimisers work in one kernel and skip a step on the device where GradScaler says so.
    """
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    match spec.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=fused or None)
        case "sgd":
            return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=True, fused=fused or None)


def build_scaler(compute: Compute) -> torch.amp.GradScaler:
    """Scales fp16 losses. On CUDA it is on in every precision, elsewhere with a constant 1: it skips bad steps without asking the host."""
    if compute.precision == "fp16":
        return torch.amp.GradScaler(compute.device)
    return torch.amp.GradScaler(compute.device, init_scale=1.0, enabled=compute.device == "cuda")


def start_state(configuration: Configuration, channels: int, classes: int, seed: int, compute: Compute) -> TrainingState:
    """A freshly initialised network with its optimiser; `classes` counts what it answers, the background too."""
    network = compute.place_network(build_network(configuration.network, channels, classes, seed, configuration.detection))
    average = {}
    if configuration.schedule.averaging:
        average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimizer = build_optimizer(network, configuration.optimizer, fused=compute.device == "cuda")
    forward = torch.compile(network) if compute.compiled else None
    return TrainingState(network, optimizer, average, build_scaler(compute), forward=forward)


@dataclass(frozen=True)
class Outcome:
    """What a step gave, still on the device: its mean loss, and whether loss and gradient were finite."""

    loss: Tensor
    finite: Tensor


def take_step(state: TrainingState, batches: Sequence[Batch], configuration: Configuration, compute: Compute) -> Outcome:
    """Forward and backward pass of every batch, their mean gradient as one update.

    A loss or gradient that is not finite changes nothing.
    """
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    forward = state.forward if state.forward is not None else state.network
    parts = []
    for batch in batches:
        with compute.autocast():
            answer = forward(batch.images)
        step = Step(state.network, answer, batch, configuration, compute, state.distribution)
        loss = compute_objective(step) / len(batches)
        state.scaler.scale(loss).backward()
        parts.append(loss.detach())
    return _update(state, torch.stack(parts).sum(), configuration.optimizer.gradient_clip, compute)


def _update(state: TrainingState, loss: Tensor, clip: float, compute: Compute) -> Outcome:
    """Moves the weights along the gradient, if all is finite; with a scaler on, the device decides that and the host never waits."""
    parameters = [parameter for parameter in state.network.parameters() if parameter.grad is not None]
    if state.scaler.is_enabled():
        parameters[0].grad.add_(loss * 0)  # type: ignore[union-attr]  # the scaler looks at gradients only: a bad loss spoils one of them
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    finite = loss.isfinite() & norm.isfinite()
    if state.scaler.is_enabled() or bool(finite):
        state.scaler.step(state.optimizer)
        state.scaler.update(None if compute.precision == "fp16" else 1.0)
    return Outcome(loss, finite)


def update_average(state: TrainingState, weight: float, finite: Tensor) -> None:
    """Moves the averaged weights towards the current ones by `weight` (exponential moving average), unless the step was not finite."""
    if not state.average:
        return
    averages = list(state.average.values())
    with torch.no_grad():
        differences = torch._foreach_sub(list(state.network.state_dict().values()), averages)
        torch._foreach_mul_(differences, finite * weight)
        torch._foreach_add_(averages, differences)


class AveragedWeights:
    """Inside this context the network has its averaged weights; its own where none are kept."""

    def __init__(self, state: TrainingState) -> None:
        self.state = state
        self.kept: dict[str, Tensor] = {}

    def __enter__(self) -> torch.nn.Module:
        if self.state.average:
            self.kept = {name: value.detach().clone() for name, value in self.state.network.state_dict().items()}
            self.state.network.load_state_dict(self.state.average)
        return self.state.network.eval()

    def __exit__(self, *_: object) -> None:
        if self.kept:
            self.state.network.load_state_dict(self.kept)
        self.state.network.train()


def list_validation_steps(settings: TrainingSettings, course: Course) -> set[int]:
    """Numbers of steps done after which whole cases are validated: ends of epochs, evenly spread over each leg, the last included."""
    count, epoch = settings.validations, settings.steps_per_epoch
    steps = {course.end} if count else set()
    for leg in course.legs:
        if leg.kind != "ending":
            wanted = [leg.first * count + (leg.last - leg.first) * (index + 1) for index in range(count)]  # in parts of a step
            steps |= {min(-(-part // (count * epoch)) * epoch, leg.last) for part in wanted}
    return steps


def train(state: TrainingState, loader: Loader, settings: TrainingSettings, course: Course, compute: Compute, hooks: Hooks) -> Course:
    """Takes the remaining steps of a fold; returns the course that was taken in the end.

    Everything random depends on seed and step alone, so that a resumption ends bit-equal. Raises Interrupted after a checkpoint where
    `should_stop` says so, and Diverged when loss or gradient are not finite three times in a row.
    """
    loop = _Loop(state, settings, course, compute, hooks)
    loop.validate()  # where a stop came in between
    batches = group_batches(loader, settings.configuration.accumulation, state.step, course.end)
    with torch.random.fork_rng(devices=[]), contextlib.closing(batches):
        while loop.look_ahead() < loop.course.end:
            loop.step(batches)
            loop.look_back()
    hooks.save(state)
    return loop.course


def group_batches(loader: Loader, accumulation: int, first: int, last: int) -> Generator[tuple[Batch, ...], None, None]:
    """The batches of steps first … last - 1, `accumulation` at a time."""
    batches: Iterator[Batch] = loader.iterate(first * accumulation, last * accumulation)
    while group := tuple(itertools.islice(batches, accumulation)):
        yield group


@dataclass
class _Loop:
    """What one training keeps between its steps. `pending` are steps whose outcome has not been read from the device yet."""

    state: TrainingState
    settings: TrainingSettings
    course: Course
    compute: Compute
    hooks: Hooks
    pending: list[tuple[int, tuple[str, ...], Outcome]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    bad: int = 0
    taken: int = 0
    waited: float = 0.0

    def __post_init__(self) -> None:
        if self.course.rescue is not None:
            self.compute = replace(self.compute, precision=self.course.rescue.precision)
        self.saved = self.read = self.paced = time.monotonic()
        self.begun = time.monotonic() - self.state.seconds
        self.rate = math.nan

    def look_ahead(self) -> int:
        """The next step's number, after a look at whether an end is asked for."""
        if self.hooks.should_end():
            course = bring_to_end(self.course, self.state.step)
            if course is not self.course:
                self.hooks.change_course(course)
            self.course = course
        return self.state.step

    def step(self, batches: Iterator[tuple[Batch, ...]]) -> None:
        configuration, state = self.settings.configuration, self.state
        self.rate = configuration.optimizer.learning_rate * compute_course_factor(configuration.schedule, self.course, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = self.rate
        begun = time.monotonic()
        taken = next(batches)
        self.waited += time.monotonic() - begun
        torch.manual_seed(((self.settings.seed << 32) + state.step) % LARGEST_SEED)  # dropout; everything else has its own generators
        outcome = take_step(state, taken, configuration, self.compute)
        update_average(state, compute_course_average(configuration.schedule, self.course, state.step), outcome.finite)
        self.pending.append((state.step, tuple(case for batch in taken for case in batch.cases), outcome))
        state.step += 1
        state.seconds = time.monotonic() - self.begun
        self.taken += 1

    def look_back(self) -> None:
        """What is due after a step: reading losses, the end of an epoch, a checkpoint, a stop."""
        state, hooks = self.state, self.hooks
        is_end = state.step % self.settings.steps_per_epoch == 0 or state.step == self.course.end
        if is_end or self.compute.device == "cpu" or self.taken in (1, PACE_STEPS + 1) or time.monotonic() - self.read > READ_SECONDS:
            self._read_outcomes()
        hooks.finish_step(state, self.losses[-1] if self.losses and not self.pending else None)
        self._tell_pace()
        if is_end:
            self._finish_epoch()
        if hooks.should_stop():
            self._leave()
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS and not self.bad:
            self.save()

    def save(self) -> None:
        self._read_outcomes()
        self.hooks.save(self.state)
        self.saved = time.monotonic()

    def validate(self) -> None:
        """Validates where this step asks for it and has not been; a checkpoint before it, so that a kill costs the validation only."""
        state = self.state
        if state.step not in list_validation_steps(self.settings, self.course) or self.hooks.is_validated(state.step) or not state.step:
            return
        self.save()
        with AveragedWeights(state) as network:
            validation = self.hooks.validate(network)
        self.hooks.finish_validation(state.step, validation)

    def _read_outcomes(self) -> None:
        """Fetches the outcomes of all steps since the last reading at once, and counts those that were not finite."""
        self.read = time.monotonic()
        if not self.pending:
            return
        losses = torch.stack([outcome.loss for _, _, outcome in self.pending]).tolist()
        finite = torch.stack([outcome.finite for _, _, outcome in self.pending]).tolist()
        scaled = self.compute.precision == "fp16" and self.state.scaler.get_scale() > 1
        steps, self.pending = self.pending, []
        for (step, cases, _), loss, good in zip(steps, losses, finite):
            if good or (scaled and math.isfinite(loss)):  # fp16's scale is found by overflows
                self.losses.append(loss)
                self.bad = 0
                continue
            self.hooks.skip_step(step, cases)
            self.bad += 1
            if self.bad >= MOST_BAD_STEPS:
                raise _name_divergence(step, cases)

    def _tell_pace(self) -> None:
        if self.taken == 1:  # the first step sets things up
            self.paced, self.waited = time.monotonic(), 0.0
        if self.taken == PACE_STEPS + 1:
            seconds = max(time.monotonic() - self.paced, 1e-9)
            self.hooks.tell_pace(Pace(seconds / PACE_STEPS, self.waited / seconds, self.course.end - self.state.step))

    def _finish_epoch(self) -> None:
        state = self.state
        epoch = math.ceil(state.step / self.settings.steps_per_epoch)
        mean = sum(self.losses) / len(self.losses) if self.losses else math.nan
        self.hooks.finish_epoch(EpochRow(epoch, state.step, state.seconds, self.rate, mean, {}))
        self.losses = []
        self.validate()
        state.seconds = time.monotonic() - self.begun

    def _leave(self) -> None:
        self.save()
        raise Interrupted(
            f"Training stopped after step {self.state.step} of {self.course.end}.",
            done="A checkpoint is written.",
            todo="Type the same command again: it goes on from here.",
        )


def _name_divergence(step: int, cases: tuple[str, ...]) -> Diverged:
    return Diverged(
        f"Loss or gradient were not finite {MOST_BAD_STEPS} times in a row, last at step {step} with cases {', '.join(cases)}.",
        "Either these scans hold extreme values, or the learning rate is too high.",
        "The last checkpoint is from before this step.",
    )
