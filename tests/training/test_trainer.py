"""The loop learns, stops where it is told, and goes on as if it had not stopped."""

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
import torch
from builders import make_configuration, make_object_configuration, write_objects, write_problem

from autoseg.errors import Diverged, Interrupted
from autoseg.networks.devices import Compute
from autoseg.records.plan import AugmentationSpec, OptimizerSpec
from autoseg.records.training import Course, TrainingSettings
from autoseg.training import trainer
from autoseg.training.checkpoints import TrainingState, restore_checkpoint, save_checkpoint
from autoseg.training.loader import Batch, Loader
from autoseg.training.sampling import Sampler
from autoseg.training.schedule import make_course
from autoseg.training.trainer import (
    AveragedWeights,
    EpochRow,
    Pace,
    Validation,
    build_optimizer,
    group_batches,
    list_validation_steps,
    start_state,
    take_step,
    update_average,
)
from autoseg.training.trainer import train as train_course

torch.set_num_threads(1)
CPU = Compute("cpu")
CONFIGURATION = make_configuration(augmentation=AugmentationSpec(rotation_probability=0.5, gamma_probability=0.5))


def make_settings(steps: int, **changes: object) -> TrainingSettings:
    settings = TrainingSettings(
        fold=0,
        configuration=CONFIGURATION,
        configuration_digest="",
        steps=steps,
        steps_per_epoch=4,
        validations=2,
        seed=0,
        device="cpu",
        precision="fp32",
        channels_last=False,
        threads=1,
        seconds_per_step=1.0,
        training_digest="",
    )
    return msgspec.structs.replace(settings, **changes)


@dataclass
class Recorder:
    """Hooks that write down what they are told."""

    folder: Path
    stop_after: int | None = None
    end_after: int | None = None
    losses: list[float] = field(default_factory=list)
    rows: list[EpochRow] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    skipped: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    paces: list[Pace] = field(default_factory=list)
    courses: list[Course] = field(default_factory=list)
    validated: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def validate(self, network):
        assert not network.training
        self.validated.append({name: value.clone() for name, value in network.state_dict().items()})
        return Validation({"tumour": 0.5}, 0.1)

    def finish_step(self, state, loss):
        self.losses.append(loss)

    def skip_step(self, step, cases):
        self.skipped.append((step, cases))

    def finish_epoch(self, row):
        self.rows.append(row)

    def is_validated(self, step):
        return all(row.validation for row in self.rows if row.step == step)

    def finish_validation(self, step, validation):
        self.rows[-1] = replace(self.rows[-1], validation=validation.scores, foreground=validation.foreground)

    def tell_pace(self, pace):
        self.paces.append(pace)

    def should_end(self):
        return self.end_after is not None and len(self.losses) >= self.end_after

    def change_course(self, course):
        self.courses.append(course)

    def save(self, state):
        self.saved.append(state.step)
        save_checkpoint(self.folder, state, "digest")

    def should_stop(self):
        return self.stop_after is not None and len(self.losses) >= self.stop_after


@pytest.fixture
def loader(tmp_path) -> Loader:
    problem = write_problem(tmp_path / "store")
    return Loader(problem.store, Sampler(tuple(case.case for case in problem.cases), problem.store.load, CONFIGURATION, 0), CPU)


def train(state, loader, settings, compute, hooks):
    """On the course that the settings foresee."""
    return train_course(state, loader, settings, make_course(settings.steps), compute, hooks)


def start() -> TrainingState:
    return start_state(CONFIGURATION, 1, 2, 0, CPU)


def test_regions_are_learnt_each_by_itself(tmp_path, loader):
    table = torch.tensor([[False, True], [False, True]])  # the block twice
    state, hooks = start(), Recorder(tmp_path / "checkpoint")
    train(state, replace(loader, regions=table), make_settings(30), CPU, hooks)
    assert sum(hooks.losses[-5:]) < 0.8 * sum(hooks.losses[:5])
    batch = next(replace(loader, regions=table).iterate(30, 31))
    with torch.no_grad():
        found = state.network(batch.images)[0] > 0
    for region in found.movedim(1, 0):
        assert 2 * (region & (batch.labels == 1)).sum() / (region.sum() + (batch.labels == 1).sum()) > 0.5


def test_the_loss_falls_and_epochs_are_told(tmp_path, loader):
    state, hooks = start(), Recorder(tmp_path / "checkpoint")
    train(state, loader, make_settings(30), CPU, hooks)
    assert state.step == 30
    assert len(hooks.losses) == 30
    assert sum(hooks.losses[-5:]) < 0.8 * sum(hooks.losses[:5])
    assert [(row.epoch, row.step) for row in hooks.rows] == [(1, 4), (2, 8), (3, 12), (4, 16), (5, 20), (6, 24), (7, 28), (8, 30)]
    assert [row.step for row in hooks.rows if row.validation] == [16, 30]
    assert hooks.rows[0].loss == pytest.approx(sum(hooks.losses[:4]) / 4)
    assert hooks.saved[-1] == 30


def test_an_interrupted_training_that_goes_on_ends_as_one_that_did_not_stop(tmp_path, loader):
    whole = start()
    train(whole, loader, make_settings(10), CPU, Recorder(tmp_path / "whole"))
    stopped, hooks = start(), Recorder(tmp_path / "parts", stop_after=6)
    with pytest.raises(Interrupted, match="after step 6 of 10"):
        train(stopped, loader, make_settings(10), CPU, hooks)
    assert hooks.saved == [6]
    resumed = start_state(CONFIGURATION, 1, 2, 99, CPU)
    assert restore_checkpoint(tmp_path / "parts", resumed, "digest")
    train(resumed, loader, make_settings(10), CPU, Recorder(tmp_path / "parts"))
    assert resumed.step == 10
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


class BadLoader:
    """Batches that hold NaN at the given steps."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad

    def iterate(self, first: int, last: int):
        for step in range(first, last):
            images = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(step))
            labels = (images[:, 0] > 0).long()
            yield Batch(images * (math.nan if step in self.bad else 1.0), labels, (f"case{step}", "B"))


def test_an_ending_that_was_interrupted_goes_on_as_one_that_was_not(tmp_path, loader):
    settings = make_settings(60)
    whole, hooks = start(), Recorder(tmp_path / "whole", end_after=20)
    assert train(whole, loader, settings, CPU, hooks).end == whole.step == 30
    assert [row.step for row in hooks.rows if row.validation] == [30]
    stopped, parts = start(), Recorder(tmp_path / "parts", stop_after=24, end_after=20)
    with pytest.raises(Interrupted):
        train(stopped, loader, settings, CPU, parts)
    (course,) = parts.courses
    resumed = start_state(CONFIGURATION, 1, 2, 99, CPU)
    assert restore_checkpoint(tmp_path / "parts", resumed, "digest")
    train_course(resumed, loader, settings, course, CPU, Recorder(tmp_path / "parts"))
    assert_equal_weights(whole, resumed)


def assert_equal_weights(one, other):
    assert one.step == other.step
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
        assert torch.equal(one.average[name], other.average[name]), name


@pytest.mark.parametrize(("product", "changes"), [("objects", {}), ("boundaries", {"detection": None})])
def test_an_interrupted_run_on_objects_ends_as_one_that_was_not(product, changes, tmp_path):
    configuration = make_object_configuration(augmentation=CONFIGURATION.augmentation, **changes)
    assert configuration.product == product
    problem = write_objects(tmp_path / "store", (48, 40))
    loader = Loader(problem.store, Sampler(("case0", "case1", "case2"), problem.store.load, configuration, 0), CPU)
    settings = make_settings(4, configuration=configuration, validations=0)
    outputs = 3 if product == "objects" else 4
    whole, hooks = start_state(configuration, 1, outputs, 0, CPU), Recorder(tmp_path / "whole")
    train(whole, loader, settings, CPU, hooks)
    assert all(map(math.isfinite, hooks.losses))
    with pytest.raises(Interrupted):
        train(start_state(configuration, 1, outputs, 0, CPU), loader, settings, CPU, Recorder(tmp_path / "parts", stop_after=2))
    resumed = start_state(configuration, 1, outputs, 99, CPU)
    assert restore_checkpoint(tmp_path / "parts", resumed, "digest")
    train(resumed, loader, settings, CPU, Recorder(tmp_path / "parts"))
    assert_equal_weights(whole, resumed)


def drop_inputs(state):
    """Dropout in front of the network, which draws from torch's own generator."""
    state.network.register_forward_pre_hook(lambda _, inputs: tuple(torch.nn.functional.dropout(x, 0.3) for x in inputs))
    return state


def test_a_resumption_drops_out_alike_and_leaves_the_callers_generator_alone(tmp_path, loader):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    whole = drop_inputs(start())
    train(whole, loader, make_settings(8), CPU, Recorder(tmp_path / "whole"))
    assert torch.rand(1) == expected
    with pytest.raises(Interrupted):
        train(drop_inputs(start()), loader, make_settings(8), CPU, Recorder(tmp_path / "parts", stop_after=3))
    resumed = drop_inputs(start())
    restore_checkpoint(tmp_path / "parts", resumed, "digest")
    train(resumed, loader, make_settings(8), CPU, Recorder(tmp_path / "parts"))
    assert_equal_weights(whole, resumed)
    plain = start()
    train(plain, loader, make_settings(8), CPU, Recorder(tmp_path / "plain"))
    with pytest.raises(AssertionError):
        assert_equal_weights(whole, plain)


def test_a_validation_that_was_cut_off_is_made_up_for(tmp_path, loader):
    class Killed(Recorder):
        def validate(self, network):
            raise KeyboardInterrupt

    settings, hooks = make_settings(8), Killed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(start(), loader, settings, CPU, hooks)
    assert hooks.saved == [4]
    resumed, later = start(), Recorder(tmp_path, rows=hooks.rows)
    assert restore_checkpoint(tmp_path, resumed, "digest")
    train(resumed, loader, settings, CPU, later)
    assert [row.step for row in later.rows if row.validation] == [4, 8]
    assert len(later.losses) == 4


def test_the_pace_tells_what_waits_for_data(tmp_path):
    class Slow(BadLoader):
        def iterate(self, first, last):
            for batch in super().iterate(first, last):
                time.sleep(0.02)
                yield batch

    hooks = Recorder(tmp_path)
    train(start(), Slow(set()), make_settings(30), CPU, hooks)
    (pace,) = hooks.paces
    assert pace.steps_left == 9
    assert pace.seconds_per_step > 0.02
    assert pace.waiting * pace.seconds_per_step == pytest.approx(0.02, rel=1)
    assert pace.seconds_left == 9 * pace.seconds_per_step


SCALED = {"fp16": Compute("cpu", "fp16"), "constant": Compute("cpu", "fp32")}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_skips_bad_steps_and_follows_the_plain_path(name, fused, optimizer):
    """The path that CUDA takes, on a CPU: bad steps change nothing, good ones are those without a scaler."""
    spec = OptimizerSpec(name=optimizer, learning_rate=0.01, weight_decay=0.01)
    configuration = msgspec.structs.replace(CONFIGURATION, optimizer=spec)
    plain, state = (start_state(configuration, 1, 2, 0, CPU) for _ in range(2))
    state.optimizer = build_optimizer(state.network, spec, fused=fused)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=256.0 if name == "fp16" else 1.0)
    good, bad, last = BadLoader({1}).iterate(0, 3)
    assert bool(take_step(state, [good], configuration, SCALED[name]).finite)
    before = {key: value.clone() for key, value in state.network.state_dict().items()}
    moments = [value.clone() for entries in state.optimizer.state.values() for value in entries.values()]
    assert not bool(take_step(state, [bad], configuration, SCALED[name]).finite)
    assert all(torch.equal(value, before[key]) for key, value in state.network.state_dict().items())
    after = [value for entries in state.optimizer.state.values() for value in entries.values()]
    assert all(torch.equal(*pair) for pair in zip(moments, after, strict=True))
    assert state.scaler.get_scale() == (128.0 if name == "fp16" else 1.0)
    take_step(state, [last], configuration, SCALED[name])
    for batch in (good, last):
        take_step(plain, [batch], configuration, CPU)
    for one, other in zip(state.network.parameters(), plain.network.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=0.03 if name == "fp16" else 1e-5)


def test_losses_stay_on_the_device_until_they_are_wanted(tmp_path, monkeypatch):
    """As on CUDA: nothing is read inside an epoch of a quick training."""
    monkeypatch.setattr(trainer, "READ_SECONDS", 1e9)
    state, hooks = start(), Recorder(tmp_path)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    loop = trainer._Loop(state, make_settings(8), make_course(8), CPU, hooks)
    object.__setattr__(loop, "compute", replace(CPU, device="meta"))
    monkeypatch.setattr(trainer, "take_step", lambda state, batches, configuration, compute: take_step(state, batches, configuration, CPU))
    batches = group_batches(BadLoader({5}), 1, 0, 8)
    for _ in range(8):
        loop.step(batches)
        loop.look_back()
    assert [loss is None for loss in hooks.losses] == [False, True, True, False, True, True, True, False]
    assert hooks.skipped == [(5, ("case5", "B"))]
    assert all(math.isfinite(row.loss) for row in hooks.rows)


def test_overflows_of_fp16_do_not_count_while_the_scale_can_fall(tmp_path):
    loop = trainer._Loop(start(), make_settings(8), make_course(8), Compute("cpu", "fp16"), Recorder(tmp_path))
    loop.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    outcome = trainer.Outcome(torch.tensor(1.0), torch.tensor(False))
    loop.pending = [(step, ("A",), outcome) for step in range(5)]
    loop._read_outcomes()
    assert (loop.bad, loop.losses) == (0, [1.0] * 5)
    loop.pending = [(step, ("A",), trainer.Outcome(torch.tensor(math.inf), torch.tensor(False))) for step in range(3)]
    with pytest.raises(Diverged):
        loop._read_outcomes()


def test_three_losses_in_a_row_that_are_not_finite_are_divergence(tmp_path):
    hooks = Recorder(tmp_path)
    with pytest.raises(Diverged, match="3 times in a row, last at step 4 with cases case4, B"):
        train(start(), BadLoader({2, 3, 4}), make_settings(10), CPU, hooks)
    assert hooks.saved == []


def test_two_losses_that_are_not_finite_are_passed_over(tmp_path):
    state, hooks = start(), Recorder(tmp_path)
    train(state, BadLoader({1, 2, 4, 5}), make_settings(8), CPU, hooks)
    assert all(value.isfinite().all() for value in state.network.state_dict().values())
    assert all(math.isfinite(row.loss) for row in hooks.rows)


def test_a_step_with_a_loss_that_is_not_finite_changes_nothing():
    state = start()
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    (batch,) = BadLoader({0}).iterate(0, 1)
    assert not take_step(state, [batch], CONFIGURATION, CPU).finite
    assert all(torch.equal(value, before[name]) for name, value in state.network.state_dict().items())


def test_validation_sees_the_averaged_weights_and_training_goes_on_with_its_own(tmp_path, loader):
    state, hooks = start(), Recorder(tmp_path)
    train(state, loader, make_settings(6, validations=1), CPU, hooks)
    assert all(torch.equal(value, state.average[name]) for name, value in hooks.validated[-1].items())
    own = {name: value.clone() for name, value in state.network.state_dict().items()}
    assert any(not torch.equal(own[name], state.average[name]) for name in own)
    with AveragedWeights(state) as network:
        assert not network.training
    assert state.network.training
    assert all(torch.equal(value, own[name]) for name, value in state.network.state_dict().items())


def test_without_averaging_the_average_is_the_network():
    plain = msgspec.structs.replace(CONFIGURATION, schedule=msgspec.structs.replace(CONFIGURATION.schedule, averaging=0.0))
    state = start_state(plain, 1, 2, 0, CPU)
    assert state.average == {}
    with AveragedWeights(state) as network:
        assert network is state.network
        assert not network.training
    assert state.network.training


def test_the_average_moves_by_its_weight_and_not_in_a_skipped_step():
    state = start()
    before = {name: value.clone() for name, value in state.average.items()}
    with torch.no_grad():
        for parameter in state.network.parameters():
            parameter.add_(1)
    update_average(state, 0.25, torch.tensor(False))
    assert all(torch.equal(value, before[name]) for name, value in state.average.items())
    update_average(state, 0.25, torch.tensor(True))
    for name, value in state.average.items():
        torch.testing.assert_close(value, before[name] + 0.25)


def test_weight_decay_leaves_norms_and_biases_alone():
    state = start()
    decayed, plain = state.optimizer.param_groups
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in plain["params"])
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(plain["params"]) == len(list(state.network.parameters()))


@pytest.mark.parametrize(
    ("steps", "validations", "expected"), [(100, 4, {28, 52, 76, 100}), (10, 1, {10}), (10, 0, set()), (2, 4, {2}), (12, 9, {4, 8, 12})]
)
def test_validations_are_at_ends_of_epochs_and_include_the_last_step(steps, validations, expected):
    assert list_validation_steps(make_settings(steps, validations=validations), make_course(steps)) == expected


def test_gradients_of_several_batches_are_averaged_to_one_update():
    """Two halves of a batch, added up, move the weights as the whole batch does (no batch-wide Dice)."""
    configuration = msgspec.structs.replace(CONFIGURATION, batch_dice=False, batch_size=4)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((4, 1, 8, 8, 8), generator=generator)
    labels = torch.randint(0, 2, (4, 8, 8, 8), generator=generator)
    whole = Batch(images, labels, ("a",) * 4)
    halves = [Batch(images[part], labels[part], ("a",) * 2) for part in (slice(0, 2), slice(2, 4))]
    one, two = (start_state(configuration, 1, 2, 0, CPU) for _ in range(2))
    losses = take_step(one, [whole], configuration, CPU), take_step(two, halves, configuration, CPU)
    assert float(losses[0].loss) == pytest.approx(float(losses[1].loss), rel=1e-5)
    for a, b in zip(one.network.parameters(), two.network.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


def test_accumulated_steps_see_every_batch_once(loader):
    grouped = [batch.cases for group in group_batches(loader, 3, 1, 3) for batch in group]
    assert grouped == [batch.cases for batch in loader.iterate(3, 9)]
