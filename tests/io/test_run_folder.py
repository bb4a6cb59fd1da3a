"""The run folder: locks against a second training, finished folds, the choice of a configuration."""

import platform
import subprocess
import sys

import msgspec
import psutil
import pytest
from builders import make_configuration

from autoseg.errors import InputError
from autoseg.io.files import save_record
from autoseg.io.run_folder import FoldFolder, LockHolder, RunFolder, choose_configuration
from autoseg.records.machine import Machine
from autoseg.records.plan import Plan


def write_lock(fold: FoldFolder, holder: LockHolder) -> None:
    fold.path.mkdir(parents=True)
    (fold.path / "lock").write_bytes(msgspec.json.encode(holder))


def test_a_living_holder_keeps_others_out_and_is_named(tmp_path):
    fold, this = FoldFolder(tmp_path / "fold_0"), psutil.Process()
    with fold.lock():
        with pytest.raises(InputError, match=rf"trained by process {this.pid} on {platform.node()}"), fold.lock():
            pass
        assert (fold.path / "lock").is_file()
    assert not (fold.path / "lock").exists()


def test_a_dead_holder_is_taken_over(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(child.pid).create_time()
    child.wait()
    fold = FoldFolder(tmp_path / "fold_0")
    write_lock(fold, LockHolder(child.pid, started, platform.node()))
    with fold.lock():
        assert msgspec.json.decode((fold.path / "lock").read_bytes())["pid"] == psutil.Process().pid


def test_a_process_number_used_again_is_not_the_holder(tmp_path):
    this, fold = psutil.Process(), FoldFolder(tmp_path / "fold_0")
    write_lock(fold, LockHolder(this.pid, this.create_time() - 1000, platform.node()))
    with fold.lock():
        assert abs(msgspec.json.decode((fold.path / "lock").read_bytes())["started"] - this.create_time()) < 1


def test_a_holder_on_another_host_is_believed_to_live(tmp_path):
    fold = FoldFolder(tmp_path / "fold_0")
    write_lock(fold, LockHolder(1, 0.0, "elsewhere"))
    with pytest.raises(InputError, match="process 1 on elsewhere"), fold.lock():
        pass


def test_the_lock_is_released_by_an_error(tmp_path):
    fold = FoldFolder(tmp_path / "fold_0")
    with pytest.raises(ValueError, match="inside"), fold.lock():
        raise ValueError("inside")
    assert not (fold.path / "lock").exists()


def test_finished_folds_have_a_model_and_its_weights(tmp_path):
    run = RunFolder(tmp_path)
    for number in (10, 2, 3):
        fold = run.fold("2d", number)
        fold.path.mkdir(parents=True)
        fold.model.touch()
        if number != 3:
            fold.weights.touch()
    (tmp_path / "models" / "2d" / "fold_old").mkdir()
    assert run.finished_folds("2d") == [2, 10]
    assert run.finished_folds("3d_fullres") == []


def test_a_folder_without_a_plan_is_no_run(tmp_path):
    with pytest.raises(InputError, match="is not a run"):
        RunFolder(tmp_path).load_plan()
    with pytest.raises(InputError, match="is not a run"):
        RunFolder(tmp_path).load_dataset()


def test_the_plan_chooses_unless_asked_and_unknown_names_are_listed(tmp_path):
    plan = Plan(
        profile="p",
        machine=Machine(device="cpu", name="m", memory=1, cores=1),
        dataset_digest="",
        fingerprint_digest="",
        orientation="LPS",
        axes=(0, 1, 2),
        default_configuration="3d_fullres",
        default_reason="",
        configurations=(make_configuration(2), make_configuration(3)),
    )
    run = RunFolder(tmp_path)
    save_record(run.plan, plan)
    plan = run.load_plan()
    assert choose_configuration(plan, None) == make_configuration(3)
    assert choose_configuration(plan, "2d") == make_configuration(2)
    with pytest.raises(InputError, match="no configuration '4d'") as caught:
        choose_configuration(plan, "4d")
    assert "2d, 3d_fullres" in caught.value.why
