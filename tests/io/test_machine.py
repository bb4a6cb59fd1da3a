"""What the machine is said to have."""

import os

import psutil
import pytest

import autoseg.io.machine as machine_module
from autoseg.errors import InputError
from autoseg.io.machine import count_cores, measure_machine, measure_memory


def test_cores_and_memory_are_those_this_process_may_use():
    assert 1 <= count_cores() <= os.cpu_count()
    assert 0 < measure_memory() <= psutil.virtual_memory().total


def test_a_cpu_has_a_rate_that_grows_with_its_cores(monkeypatch):
    monkeypatch.setattr(machine_module, "count_cores", lambda: 1)
    one = measure_machine("cpu")
    monkeypatch.setattr(machine_module, "count_cores", lambda: 8)
    eight = measure_machine("cpu", memory=123)
    assert one.device == "cpu"
    assert one.flops_source == "estimated"
    assert eight.flops == 8 * one.flops > 0
    assert eight.memory == 123


@pytest.mark.parametrize(("flags", "rate"), [({"avx2", "avx512f"}, 35e9), ({"avx2"}, 25e9), (set(), 15e9), ({"amx_bf16", "avx2"}, 300e9)])
def test_the_widest_instruction_set_counts(monkeypatch, flags, rate):
    monkeypatch.setattr(machine_module, "read_cpu_flags", lambda: flags)
    monkeypatch.setattr(machine_module, "count_cores", lambda: 1)
    assert measure_machine("cpu").flops == rate


def test_a_memory_size_stands_for_a_gpu_elsewhere(monkeypatch):
    monkeypatch.setattr(machine_module, "_ask_gpu", lambda: None)
    machine = measure_machine(memory=24 * 10**9)
    assert (machine.device, machine.memory, machine.name) == ("cuda", 24 * 10**9, "a GPU of 24 GB")


def test_a_gpu_is_taken_where_one_answers_and_missed_where_it_was_asked_for(monkeypatch):
    monkeypatch.setattr(machine_module, "_ask_gpu", lambda: ("H100", 80 * 10**9))
    assert measure_machine().name == "H100"
    assert measure_machine("cpu").device == "cpu"
    monkeypatch.setattr(machine_module, "_ask_gpu", lambda: None)
    assert measure_machine().device == "cpu"
    with pytest.raises(InputError, match="No NVIDIA GPU answers"):
        measure_machine("cuda")
