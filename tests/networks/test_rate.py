"""The step rate of a CPU: its operations are those that planning counts, its timing takes the best of what it tried."""

import json

import pytest
import torch

from autoseg.networks import rate
from autoseg.networks.devices import Compute
from autoseg.planning.cost import count_operations

SMALL = (8, 16, 8)


def test_the_operations_of_a_step_are_those_that_planning_counts():
    assert count_operations(rate.SPEC, rate.PATCH, rate.CHANNELS, rate.CLASSES) * rate.BATCH == rate.OPERATIONS


@pytest.mark.parametrize("precision", rate.PRECISIONS)
def test_a_step_trains_the_whole_network_in_its_layout(precision):
    step = rate.TimedStep(Compute("cpu", precision, channels_last=True), SMALL)
    before = {name: value.clone() for name, value in step.network.named_parameters()}
    assert step() > 0
    assert step.images.shape == (rate.BATCH, rate.CHANNELS, *SMALL)
    for name, value in step.network.named_parameters():
        assert value.grad is not None, name
        if precision == "fp32":  # on CPUs that imitate 16 bits, the library's gradients of tiny maps are now and then not finite
            assert not torch.equal(value, before[name]), name
        if value.ndim == 5:
            assert value.is_contiguous(memory_format=torch.channels_last_3d)


def script(monkeypatch, seconds, small):
    """Stands in for steps: `seconds` and `small` per precision are what full and small steps take; returns the calls (precision, size)."""
    calls = []

    def make(compute, patch=rate.PATCH):
        durations = iter((seconds if patch == rate.PATCH else small)[compute.precision])

        def step():
            calls.append((compute.precision, "full" if patch == rate.PATCH else "small"))
            return next(durations)

        return step

    clock = iter(range(100))  # a second per look at the clock
    monkeypatch.setattr(rate, "TimedStep", make)
    monkeypatch.setattr(rate.time, "perf_counter", lambda: float(next(clock)))
    return calls


@pytest.mark.parametrize(
    ("fp32", "bf16", "best"), [([3.0, 1.0, 2.0], [4.0, 4.0, 1.5], ("fp32", 1.0)), ([3.0, 1.0, 2.0], [0.5, 2.0, 2.0], ("bf16", 0.5))]
)
def test_the_fastest_step_of_the_faster_precision_counts(monkeypatch, fp32, bf16, best):
    calls = script(monkeypatch, {"fp32": fp32, "bf16": bf16}, {"fp32": [9, 1], "bf16": [9, 1]})
    assert rate.measure_flops(1, seconds=4) == (rate.OPERATIONS / best[1], best[0])
    assert calls[4:] == [("fp32", "full"), ("bf16", "full")] * 3  # they take turns


def test_a_precision_that_is_only_imitated_is_given_up_on_the_small_patch(monkeypatch):
    calls = script(monkeypatch, {"fp32": [1.0] * 3, "bf16": []}, {"fp32": [5, 1], "bf16": [5, 2.1]})
    assert rate.measure_flops(1, seconds=4) == (rate.OPERATIONS, "fp32")
    assert ("bf16", "full") not in calls


def test_at_least_one_step_is_timed_however_long_it_takes(monkeypatch):
    script(monkeypatch, {"fp32": [50.0], "bf16": [60.0]}, {"fp32": [1, 1], "bf16": [1, 1]})
    assert rate.measure_flops(1, seconds=0) == (rate.OPERATIONS / 50, "fp32")


def test_the_command_writes_one_line_of_json(monkeypatch, capsysbinary):
    monkeypatch.setattr(rate, "PATCH", (16, 32, 16))
    monkeypatch.setattr(rate.measure_flops, "__defaults__", (0,))
    rate.main(["1"])
    (line,) = capsysbinary.readouterr().out.splitlines()
    written = json.loads(line)
    assert set(written) == {"flops", "precision"}
    assert written["flops"] > 0
    assert written["precision"] in rate.PRECISIONS
