"""Folds side by side: each on a device of its own, one that fails does not stop the others, and a stop reaches all."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest
from whole_way import TRAIN_WORDS

from autoseg.commands.job import TrainOptions
from autoseg.commands.launch import take_gpus
from autoseg.commands.prepare import prepare
from autoseg.commands.spread import choose_gpus, format_options, make_starter, spread
from autoseg.errors import CasesFailed, InputError, Interrupted
from autoseg.io.run_folder import RunFolder
from autoseg.progress import Silent
from autoseg.training.signals import StopRequest, listen_to_signals

# A fold that works until its file appears, and ends with 75 when asked to stop.
WORK = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("working", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
print("the reason", flush=True)
sys.exit(int(sys.argv[2]))
"""


@dataclass
class Folds:
    """Starts made-up folds: which on which device, and how many at once."""

    folder: object
    codes: dict[int, int] = field(default_factory=dict)
    started: list[tuple[int, int]] = field(default_factory=list)
    processes: dict[int, subprocess.Popen] = field(default_factory=dict)
    most: int = 0

    def start(self, fold, gpu):
        line = [sys.executable, "-c", WORK, str(self.folder / str(fold)), str(self.codes.get(fold, 0))]
        busy = [device for number, device in self.started if self.processes[number].poll() is None]
        assert gpu not in busy
        self.started.append((fold, gpu))
        self.processes[fold] = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.most = max(self.most, len(busy) + 1)
        if self.most > 1:  # once two have met, all may end
            self.release(5)
        return self.processes[fold]

    def release(self, count):
        for fold in range(count):
            (self.folder / str(fold)).touch()


@dataclass
class Listener(Silent):
    texts: list[str] = field(default_factory=list)

    def say(self, text, **event):
        self.texts.append(text)

    warn = say


def test_every_fold_is_trained_once_and_two_at_a_time_on_two_devices(tmp_path):
    folds, listener = Folds(tmp_path), Listener()
    spread(range(5), (3, 7), folds.start, listener, StopRequest())
    assert sorted(fold for fold, _ in folds.started) == list(range(5))
    assert folds.started[:2] == [(0, 3), (1, 7)]
    assert {gpu for _, gpu in folds.started} == {3, 7}
    assert folds.most == 2
    assert {f"fold {fold}: the reason" for fold in range(5)} <= set(listener.texts)


def test_a_fold_that_fails_is_named_with_its_last_words_and_the_others_go_on(tmp_path):
    folds, listener = Folds(tmp_path, {1: 5}), Listener()
    with pytest.raises(CasesFailed, match="failed for fold 1") as told:
        spread(range(4), (0, 1), folds.start, listener, StopRequest())
    assert "fold 1 (exit 5): working the reason" in str(told.value)
    assert "Finished: fold 0, 2, 3" in str(told.value)
    assert told.value.exit_code == 3
    assert "Fold 1 failed (exit 5)." in listener.texts


def test_a_stop_reaches_every_running_fold_and_no_other_is_started(tmp_path):
    folds = Folds(tmp_path)
    folds.release = lambda count: None

    def interrupt():
        while len(folds.started) < 2:
            time.sleep(0.01)
        time.sleep(1.0)  # until both listen
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with listen_to_signals() as request, pytest.raises(Interrupted) as told:
        spread(range(5), (0, 1), folds.start, Listener(), request)
    assert told.value.exit_code == 75
    assert len(folds.started) == 2
    assert [process.returncode for process in folds.processes.values()] == [75, 75]


def test_an_error_of_ours_leaves_no_fold_behind(tmp_path):
    folds = Folds(tmp_path)
    folds.release = lambda count: None

    def start(fold, gpu):
        if fold == 1:
            raise OSError("no more processes")
        return folds.start(fold, gpu)

    with pytest.raises(OSError, match="no more"):
        spread(range(2), (0, 1), start, Silent(), StopRequest())
    assert folds.processes[0].poll() is not None


def test_two_folds_are_trained_by_command_on_two_made_up_devices(planned_copy):
    options = TrainOptions(steps=2, precision="fp32", workers=1)
    listener = Listener()
    prepare(planned_copy, "3d_fullres", 1)
    spread([0, 1], (0, 1), make_starter(planned_copy, "3d_fullres", "cpu", options), listener, StopRequest())
    assert RunFolder(planned_copy).finished_folds("3d_fullres") == [0, 1]
    assert any(text.startswith("fold 1: Model: ") for text in listener.texts)


def test_options_are_passed_on_as_they_are_typed():
    assert format_options(TrainOptions()) == []
    options = TrainOptions(minutes=1.5, seed=3, overwrite=True, workers=2, augmentation="batchgenerators", device="cuda", gpus=(1,))
    assert format_options(options) == ["--minutes=1.5", "--seed=3", "--overwrite", "--workers=2", "--augmentation=batchgenerators"]


def test_which_gpus_are_used(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert choose_gpus(TrainOptions(), "cuda", 5) == (0, 1, 2)
    assert choose_gpus(TrainOptions(), "cuda", 1) == ()
    assert choose_gpus(TrainOptions(), "cpu", 5) == ()
    assert choose_gpus(TrainOptions(gpus=(2, 0)), "cuda", 5) == (2, 0)
    with pytest.raises(InputError, match="no GPU 3"):
        choose_gpus(TrainOptions(gpus=(0, 3)), "cuda", 5)
    with pytest.raises(InputError, match="torchrun --nproc-per-node 2"):
        choose_gpus(TrainOptions(gpus=(0, 1)), "cuda", 1)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert choose_gpus(TrainOptions(), "cuda", 5) == ()


def test_a_process_sees_only_the_gpu_that_it_is_given():
    environment = {}
    assert take_gpus(environment, (0, 1)) == (0, 1)
    assert not environment
    assert take_gpus(environment, (1,)) == ()
    assert environment == {"CUDA_VISIBLE_DEVICES": "1"}
    environment = {"CUDA_VISIBLE_DEVICES": "4,GPU-5"}
    take_gpus(environment, (1,))
    assert environment == {"CUDA_VISIBLE_DEVICES": "GPU-5"}
    with pytest.raises(InputError, match="no GPU 1"):
        take_gpus(environment, (1,))
    rank = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    take_gpus(rank, (2, 6))
    assert rank["CUDA_VISIBLE_DEVICES"] == "6"


def test_gpus_that_are_not_there_or_no_list_are_refused(autoseg, planned_copy):
    answer = autoseg("train", planned_copy, *TRAIN_WORDS, "--gpus", "0,1")
    assert answer.code == 2
    assert "no GPU 0, 1" in answer.err
    assert autoseg("train", planned_copy, *TRAIN_WORDS, "--gpus", "0,0").code == 2
