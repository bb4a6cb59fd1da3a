"""What a training fixes before its first step, on a machine that has less memory than planned."""

import json
import math

import torch
from whole_way import MODEL

from autoseg.commands import settle
from autoseg.commands.settle import _describe_candidates
from autoseg.networks.devices import Compute
from autoseg.training.precision import time_candidates

WORDS = ("--fold", "0", "--device", "cpu", "--steps", "2", "--precision", "fp32", "--workers", "1")


def fail_above(voxels):
    """Real steps, but a batch of more than `voxels` does not fit."""

    def take(configuration, channels, classes, loader, precision="auto"):
        if configuration.batch_size * math.prod(configuration.patch_size) > voxels:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return time_candidates(configuration, channels, classes, loader, precision)

    return take


def test_a_step_that_does_not_fit_is_taken_with_less_and_recorded(autoseg, planned_copy, monkeypatch):
    plan = json.loads((planned_copy / "plan.json").read_text())
    planned = next(c for c in plan["configurations"] if c["name"] == "3d_fullres")
    monkeypatch.setattr(settle, "time_candidates", fail_above(math.prod(planned["patch_size"])))
    answer = autoseg("train", planned_copy, *WORDS)
    assert answer.code == 0, answer.err
    assert "does not fit into the memory" in answer.out
    settings = json.loads((planned_copy / MODEL / "settings.json").read_text())
    used = settings["configuration"]
    assert (used["batch_size"], used["accumulation"]) == (1, planned["batch_size"])
    assert used["patch_size"] == planned["patch_size"]
    assert "did not fit" in used["reasons"]["batch_size"]
    assert json.loads((planned_copy / MODEL / "model.json").read_text())["configuration"] == used
    assert autoseg("train", planned_copy, *WORDS).code == 0  # finished, and not taken for another plan's


def test_where_nothing_fits_it_says_so_and_exits_4(autoseg, planned_copy, monkeypatch):
    monkeypatch.setattr(settle, "time_candidates", fail_above(0))
    answer = autoseg("train", planned_copy, *WORDS)
    assert answer.code == 4
    assert "memory" in answer.err
    assert not (planned_copy / MODEL / "settings.json").exists()


def test_the_second_stage_of_a_cascade_is_refused_by_name(autoseg, planned_copy):
    path = planned_copy / "plan.json"
    plan = json.loads(path.read_text())
    full = next(c for c in plan["configurations"] if c["name"] == "3d_fullres")
    low = {**full, "name": "3d_lowres"}
    plan["configurations"] += [low, {**full, "name": "3d_cascade", "previous": "3d_lowres"}]
    path.write_text(json.dumps(plan))
    answer = autoseg("train", planned_copy, *WORDS, "--configuration", "3d_cascade")
    assert answer.code == 2
    assert "3d_cascade is planned, but" in answer.err
    assert "3d_lowres" in answer.err


def test_the_line_of_candidates_tells_gain_and_what_did_not_start():
    timed = {Compute("cpu"): 0.5, Compute("cpu", channels_last=True): 1.0, Compute("cpu", compiled=True): math.inf}
    line = _describe_candidates(timed)
    assert "fp32: 0.500 s a step, 2.0 times as fast as the slowest" in line
    assert "fp32 channels-last 1.000 s" in line
    assert "fp32 compiled does not start" in line
