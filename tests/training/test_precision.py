"""Which precisions are tried, and how long."""

import itertools
from types import SimpleNamespace

import pytest
from builders import make_configuration, write_problem

from autoseg.networks.devices import Compute
from autoseg.training import precision
from autoseg.training.loader import Loader
from autoseg.training.precision import time_candidates, time_steps
from autoseg.training.sampling import Sampler

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
    monkeypatch.setattr(precision, "take_step", lambda *words: taken.append(1))
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=itertools.count(0, 11).__next__))
    monkeypatch.setattr(precision, "read_cpu_flags", set)
    time_candidates(CONFIGURATION, 1, 2, loader)
    assert len(taken) == 4  # two layouts: one step each to set up, one timed
    taken.clear()
    assert time_steps(CONFIGURATION, 1, 2, loader) == 11
    assert len(taken) == 2
