"""The loop: one step after the other, and what happens between them."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from autoseg.errors import Diverged, Interrupted
from autoseg.networks.build import build_network
from autoseg.networks.devices import Compute
from autoseg.records.plan import Configuration, OptimizerSpec, ScheduleSpec
from autoseg.records.training import TrainingSettings
from autoseg.training.checkpoints import TrainingState
from autoseg.training.loader import Batch, Loader
from autoseg.training.losses import compute_loss
from autoseg.training.schedule import compute_average_weight, compute_rate_factor

MOST_BAD_STEPS = 3  # in a row with a loss that is not finite
CHECKPOINT_SECONDS = 120.0


@dataclass(frozen=True)
class EpochRow:
    """One line of log.csv: mean training loss of the epoch, learning rate at its end, validation Dice by class where it was measured."""

    epoch: int
    step: int
    seconds: float
    learning_rate: float
    loss: float
    validation: dict[str, float | None]


class Hooks(Protocol):
    """What the loop tells and asks its owner."""

    def validate(self, network: torch.nn.Module) -> dict[str, float | None]:
        """Dice by class of the averaged network on whole validation cases."""

    def finish_step(self, state: TrainingState, loss: float) -> None: ...

    def finish_epoch(self, row: EpochRow) -> None: ...

    def save(self, state: TrainingState) -> None: ...

    def should_stop(self) -> bool: ...


def build_optimizer(network: torch.nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    """AdamW (Loshchilov 2019, arXiv 1711.05101) or SGD with Nesterov momentum; no weight decay on norms and biases."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    match spec.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=spec.learning_rate)
        case "sgd":
            return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=True)


def start_state(configuration: Configuration, channels: int, classes: int, seed: int, compute: Compute) -> TrainingState:
    """A freshly initialised network with its optimiser; `classes` counts the background."""
    network = compute.place_network(build_network(configuration.network, channels, classes, seed))
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return TrainingState(network, build_optimizer(network, configuration.optimizer), average)


def take_step(state: TrainingState, batches: Sequence[Batch], configuration: Configuration, compute: Compute) -> float:
    """Forward and backward pass of every batch, their mean gradient as one update; returns the mean loss.

    A loss that is not finite changes nothing.
    """
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        with compute.autocast():
            logits = (state.forward or state.network)(batch.images)
        loss = compute_loss(logits, batch.labels, configuration.loss, configuration.batch_dice, state.distribution) / len(batches)
        value = float(loss.detach())
        total += value
        if not math.isfinite(value):
            return value
        loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), configuration.optimizer.gradient_clip)
    state.optimizer.step()
    return total


def update_average(state: TrainingState, spec: ScheduleSpec, steps: int) -> None:
    """Moves the averaged weights towards the current ones (exponential moving average)."""
    weight = compute_average_weight(spec, state.step, steps) if spec.averaging else 1.0
    with torch.no_grad():
        for name, value in state.network.state_dict().items():
            state.average[name].lerp_(value, weight)


class AveragedWeights:
    """Inside this context the network has its averaged weights."""

    def __init__(self, state: TrainingState) -> None:
        self.state = state
        self.kept: dict[str, Tensor] = {}

    def __enter__(self) -> torch.nn.Module:
        self.kept = {name: value.detach().clone() for name, value in self.state.network.state_dict().items()}
        self.state.network.load_state_dict(self.state.average)
        return self.state.network.eval()

    def __exit__(self, *_: object) -> None:
        self.state.network.load_state_dict(self.kept)
        self.state.network.train()


def list_validation_steps(settings: TrainingSettings) -> set[int]:
    """Numbers of steps done after which whole cases are validated: ends of epochs, evenly spread, the last included."""
    count, epochs = settings.validations, math.ceil(settings.steps / settings.steps_per_epoch)
    ends = {math.ceil(epochs * (index + 1) / count) for index in range(count)}
    return {min(end * settings.steps_per_epoch, settings.steps) for end in ends}


def train(state: TrainingState, loader: Loader, settings: TrainingSettings, compute: Compute, hooks: Hooks) -> None:
    """Takes the remaining steps of a fold.

    Raises Interrupted after a checkpoint where `should_stop` says so, and Diverged when the loss is not finite three times in a row.
    """
    configuration = settings.configuration
    validation_steps = list_validation_steps(settings)
    losses: list[float] = []
    bad = 0
    saved = time.monotonic()
    clock = time.monotonic() - state.seconds
    for batches in group_batches(loader, configuration.accumulation, state.step, settings.steps):
        rate = configuration.optimizer.learning_rate * compute_rate_factor(configuration.schedule, state.step, settings.steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        loss = take_step(state, batches, configuration, compute)
        bad = _count_bad(loss, bad, state.step, tuple(case for batch in batches for case in batch.cases))
        update_average(state, configuration.schedule, settings.steps)
        state.step += 1
        state.seconds = time.monotonic() - clock
        losses += [loss] if math.isfinite(loss) else []
        hooks.finish_step(state, loss)
        if state.step % settings.steps_per_epoch == 0 or state.step == settings.steps:
            scores = _validate(state, hooks.validate) if state.step in validation_steps else {}
            epoch = math.ceil(state.step / settings.steps_per_epoch)
            mean = sum(losses) / len(losses) if losses else math.nan
            hooks.finish_epoch(EpochRow(epoch, state.step, time.monotonic() - clock, rate, mean, scores))
            losses = []
        if hooks.should_stop():
            hooks.save(state)
            raise Interrupted(
                f"Training stopped after step {state.step} of {settings.steps}.",
                done="A checkpoint is written.",
                todo="Type the same command again: it goes on from here.",
            )
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            hooks.save(state)
            saved = time.monotonic()
    hooks.save(state)


def group_batches(loader: Loader, accumulation: int, first: int, last: int) -> Iterator[tuple[Batch, ...]]:
    """The batches of steps first … last - 1, `accumulation` at a time."""
    batches = loader.iterate(first * accumulation, last * accumulation)
    while group := tuple(itertools.islice(batches, accumulation)):
        yield group


def _validate(state: TrainingState, validate: Callable[[torch.nn.Module], dict[str, float | None]]) -> dict[str, float | None]:
    with AveragedWeights(state) as network:
        return validate(network)


def _count_bad(loss: float, bad: int, step: int, cases: tuple[str, ...]) -> int:
    if math.isfinite(loss):
        return 0
    if bad + 1 >= MOST_BAD_STEPS:
        raise Diverged(
            f"The loss was not finite {MOST_BAD_STEPS} times in a row, last at step {step} with cases {', '.join(cases)}.",
            "Either these scans hold extreme values, or the learning rate is too high.",
            "The last checkpoint is from before this step.",
        )
    return bad + 1
