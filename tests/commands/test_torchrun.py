"""One fold by torchrun: two processes leave one model, as one process does."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from whole_way import MODEL, STEPS, list_partials, wait_until

from autoseg.io.files import load_record
from autoseg.records.training import TrainingStatus

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def start_ranks(run) -> subprocess.Popen:
    words = ("--fold", "0", "--device", "cpu", "--steps", str(STEPS), "--precision", "fp32", "--workers", "1")
    line = [*TORCHRUN, "2", "-m", "autoseg", "train", str(run), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment)


def read_losses(run) -> list[float]:
    return [float(line.split(",")[4]) for line in (run / MODEL / "log.csv").read_text().splitlines()[1:]]


def kill_second_rank(process, run) -> int:
    """SIGKILL to the rank that holds no lock; returns the process number of the one that does."""
    leader = json.loads((run / MODEL / "lock").read_text())["pid"]
    (other,) = (child.pid for child in psutil.Process(process.pid).children() if child.pid != leader and "autoseg" in child.cmdline())
    os.kill(other, signal.SIGKILL)
    return leader


def test_two_ranks_leave_one_model_with_the_losses_of_one_process_though_one_was_killed(trained, planned_copy):
    process = start_ranks(planned_copy)
    wait_until((planned_copy / MODEL / "log.csv").is_file, process)
    leader = kill_second_rank(process, planned_copy)
    text, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "rank 0 of 2 ends with it" in text or "Signal 9" in text, text  # told by the first rank, or by torchrun where that is faster
    assert not psutil.pid_exists(leader)
    assert not (planned_copy / MODEL / "model.json").exists()

    process = start_ranks(planned_copy)
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    assert text.count("Model: ") == text.count("Patch ") == 1
    assert {path.name for path in (planned_copy / MODEL).iterdir()} == {path.name for path in (trained / MODEL).iterdir()}
    assert not list_partials(planned_copy)
    assert load_record(TrainingStatus, planned_copy / MODEL / "status.json").state == "finished"
    assert (planned_copy / "log.txt").read_text().count(": autoseg train") == 2  # one rank of each keeps the log
    two, one = (json.loads((run / MODEL / "settings.json").read_text()) for run in (planned_copy, trained))
    assert two["configuration"] == one["configuration"]
    assert read_losses(planned_copy) == pytest.approx(read_losses(trained), abs=2e-3)
