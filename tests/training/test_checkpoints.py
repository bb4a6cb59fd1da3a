"""A checkpoint brings back the state to the last bit, or the one before it does."""

import pytest
import torch
from builders import make_configuration

from autoseg.networks.devices import Compute
from autoseg.progress import Silent
from autoseg.records.plan import OptimizerSpec
from autoseg.training.checkpoints import TrainingState, list_checkpoints, restore_checkpoint, save_checkpoint
from autoseg.training.loader import Batch
from autoseg.training.trainer import start_state, take_step, update_average

torch.set_num_threads(1)
CPU = Compute("cpu")
OPTIMIZERS = {
    "adamw": OptimizerSpec(name="adamw", learning_rate=0.01, weight_decay=0.01),
    "sgd": OptimizerSpec(name="sgd", learning_rate=0.01, weight_decay=0.01),
}
CONFIGURATIONS = {name: make_configuration(optimizer=spec) for name, spec in OPTIMIZERS.items()}


def make_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 1, 8, 8, 8, generator=generator)
    return Batch(images, (images[:, 0] > 0.5).long(), ("A", "B"))


def advance(state: TrainingState, name: str, steps: int) -> None:
    for _ in range(steps):
        outcome = take_step(state, [make_batch(state.step)], CONFIGURATIONS[name], CPU)
        update_average(state, 0.3, outcome.finite)
        state.step += 1


def start(name: str = "adamw", seed: int = 0) -> TrainingState:
    return start_state(CONFIGURATIONS[name], 1, 2, seed, CPU)


def assert_equal(one: TrainingState, other: TrainingState) -> None:
    assert (one.step, one.seconds) == (other.step, other.seconds)
    for (name, value), theirs in zip(one.network.state_dict().items(), other.network.state_dict().values(), strict=True):
        assert torch.equal(value, theirs), name
        assert torch.equal(one.average[name], other.average[name]), name
    mine, theirs = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for index, entries in mine.items():
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[index][key])) for key, value in entries.items())


def test_a_fresh_state_is_restored_to_the_last_bit_and_goes_on_alike(tmp_path):
    for name in OPTIMIZERS:
        state = start(name)
        advance(state, name, 3)
        state.seconds = 12.5
        save_checkpoint(tmp_path / name, state, "digest")
        fresh = start(name, seed=9)
        assert restore_checkpoint(tmp_path / name, fresh, "digest")
        assert_equal(fresh, state)
        advance(state, name, 2)
        advance(fresh, name, 2)
        assert_equal(fresh, state)


def test_two_generations_are_kept(tmp_path):
    state = start()
    for _ in range(4):
        advance(state, "adamw", 1)
        save_checkpoint(tmp_path, state, "digest")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000004.safetensors", "step_000000003.safetensors"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    state = start()
    for _ in range(2):
        advance(state, "adamw", 1)
        save_checkpoint(tmp_path, state, "digest")
    newest = list_checkpoints(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-10])
    fresh, expected = start(seed=9), start()
    assert restore_checkpoint(tmp_path, fresh, "digest")
    advance(expected, "adamw", 1)
    assert_equal(fresh, expected)


class Heard(Silent):
    """Keeps what was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text, **event):
        self.warnings.append(text)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.999])
def test_a_single_bit_that_differs_is_seen_and_told(tmp_path, place):
    state = start()
    for _ in range(2):
        advance(state, "adamw", 1)
        save_checkpoint(tmp_path, state, "digest")
    newest, older = list_checkpoints(tmp_path)
    data = bytearray(newest.read_bytes())
    data[round(place * len(data))] ^= 1
    newest.write_bytes(data)
    fresh, heard = start(seed=9), Heard()
    assert restore_checkpoint(tmp_path, fresh, "digest", heard)
    assert fresh.step == 1
    assert len(heard.warnings) == 1
    assert str(newest) in heard.warnings[0]
    older.unlink()
    assert not restore_checkpoint(tmp_path, start(), "digest")


def test_a_changed_header_is_seen(tmp_path):
    state = start()
    advance(state, "adamw", 1)
    save_checkpoint(tmp_path, state, "digest")
    (path,) = list_checkpoints(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'step\\":1', b'step\\":7', 1))
    assert path.read_bytes() != data
    assert not restore_checkpoint(tmp_path, start(), "digest")


def test_damaged_checkpoints_do_not_count_as_generations(tmp_path):
    state = start()
    for _ in range(3):
        advance(state, "adamw", 1)
        save_checkpoint(tmp_path, state, "digest")
    list_checkpoints(tmp_path)[0].write_bytes(b"damaged")
    fresh = start(seed=9)
    restore_checkpoint(tmp_path, fresh, "digest")
    fresh.step = 2
    save_checkpoint(tmp_path, fresh, "digest")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000002.safetensors"]


def test_the_scaler_of_fp16_losses_comes_back(tmp_path):
    state, fresh = start(), start()
    for one in (state, fresh):
        one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    state.scaler.scale(torch.ones(1))
    state.scaler.update(4.0)
    save_checkpoint(tmp_path, state, "digest")
    assert restore_checkpoint(tmp_path, fresh, "digest")
    assert fresh.scaler.get_scale() == 4.0
    assert fresh.scaler.state_dict() == state.scaler.state_dict()


def test_checkpoints_of_other_settings_and_empty_folders_are_left_alone(tmp_path):
    state, fresh, untouched = start(), start(seed=9), start(seed=9)
    advance(state, "adamw", 1)
    save_checkpoint(tmp_path / "some", state, "one")
    assert not restore_checkpoint(tmp_path / "some", fresh, "other")
    assert not restore_checkpoint(tmp_path / "none", fresh, "one")
    assert_equal(fresh, untouched)
