"""Which precisions are tried, and how long."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from builders import make_configuration, write_problem

from autoseg.networks.devices import Compute
from autoseg.training import precision
from autoseg.training.loader import Loader
from autoseg.training.precision import time_candidates, time_steps, time_threads
from autoseg.training.sampling import Sampler
from autoseg.training.trainer import Outcome, start_state, take_step

CONFIGURATION = make_configuration()


@pytest.fixture
def loader(tmp_path):
    problem = write_problem(tmp_path / "store")
    return Loader(problem.store, Sampler(tuple(case.case for case in problem.cases), problem.store.load, CONFIGURATION, 0), Compute("cpu"))


def list_names(loader, asked="auto"):
    return {compute.precision for compute in time_candidates(CONFIGURATION, 1, 2, loader, asked)}


@pytest.mark.parametrize(
    ("flags", "expected"), [({"avx2"}, {"fp32"}), ({"avx512_bf16"}, {"fp32", "bf16"}), ({"amx_bf16"}, {"fp32", "bf16"})]
)
def test_16_bits_are_tried_where_the_cpu_computes_in_them(loader, monkeypatch, flags, expected):
    monkeypatch.setattr(precision, "read_cpu_flags", lambda: flags)
    assert list_names(loader) == expected


def test_16_bits_are_tried_anywhere_when_asked_for(loader, monkeypatch):
    monkeypatch.setattr(precision, "read_cpu_flags", set)
    assert list_names(loader, "bf16") == {"bf16"}


def test_slow_steps_are_timed_fewer_times(loader, monkeypatch):
    """A clock that goes on by eleven seconds whenever it is read."""
    taken = []
    monkeypatch.setattr(precision, "take_step", lambda *words: taken.append(1) or Outcome(torch.zeros(()), torch.ones(())))
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=itertools.count(0, 11).__next__))
    monkeypatch.setattr(precision, "read_cpu_flags", set)
    time_candidates(CONFIGURATION, 1, 2, loader)
    assert len(taken) == 4  # two layouts: one step each to set up, one timed
    taken.clear()
    assert time_steps(CONFIGURATION, 1, 2, loader) == 11
    assert len(taken) == 2


def test_the_fastest_number_of_threads_comes_first_and_torch_keeps_its_own(loader, monkeypatch):
    """Steps that take as many seconds as there are threads too many."""
    clock = SimpleNamespace(now=0.0)

    def step(*words):
        clock.now += 1 + abs(torch.get_num_threads() - 3)
        return Outcome(torch.zeros(()), torch.ones(()))

    monkeypatch.setattr(precision, "take_step", step)
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    before = torch.get_num_threads()
    assert time_threads(CONFIGURATION, 1, 2, loader, (2, 3, 4)) == {3: 1, 2: 2, 4: 2}
    assert torch.get_num_threads() == before


def test_a_compiler_that_does_not_start_leaves_the_plain_step(loader, monkeypatch):
    batch = loader.make_batch(loader.read(0))
    monkeypatch.setattr(torch, "compile", lambda network: None)
    assert precision._time_compiled(CONFIGURATION, 1, 2, batch, Compute("cpu")).keys() == {Compute("cpu", compiled=True)}

    def refuse(network):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    assert precision._time_compiled(CONFIGURATION, 1, 2, batch, Compute("cpu")) == {Compute("cpu", compiled=True): math.inf}


def test_a_compiled_network_trains_the_weights_of_the_plain_one(loader, monkeypatch):
    """Compiled by torch's own front end, without code generation."""
    compile_network = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_network(network, backend="eager"))
    batch = loader.make_batch(loader.read(0))
    weights = []
    for compute in (Compute("cpu"), Compute("cpu", compiled=True)):
        state = start_state(CONFIGURATION, 1, 2, 0, compute)
        take_step(state, [batch], CONFIGURATION, compute)
        weights.append(state.network.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value)
