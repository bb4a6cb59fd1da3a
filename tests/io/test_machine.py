"""What the machine is said to have."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

import autoseg
import autoseg.io.machine as machine_module
from autoseg.errors import InputError
from autoseg.io.machine import count_cores, estimate_rate, find_rate, is_busy, measure_machine, measure_memory, measure_rate


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


@pytest.mark.parametrize(("flags", "rate"), [({"avx2", "avx512f"}, 55e9), ({"avx2"}, 25e9), (set(), 15e9), ({"amx_bf16", "avx2"}, 300e9)])
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


@pytest.fixture
def child(monkeypatch, tmp_path):
    """Makes a shell script stand in for Python, on a quiet machine."""
    monkeypatch.setattr(machine_module, "is_busy", lambda: False)

    def make(text):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return make


def test_a_rate_is_what_the_child_measures(monkeypatch, child, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = f'echo "$@" > {tmp_path}/words; pwd > {tmp_path}/folder; echo "noise" >&2; echo "warning"\n'
    child(script + 'echo \'{"flops": 5e10, "precision": "bf16"}\'')
    assert measure_rate(3) == 5e10
    option, name, cores = (tmp_path / "words").read_text().split()
    assert (option, cores) == ("-m", "3")
    assert find_spec(name) is not None
    assert Path((tmp_path / "folder").read_text().strip()) == Path(autoseg.__file__).parents[1]


@pytest.mark.parametrize(
    "text",
    [
        "exit 0",
        "exit 1",
        'echo \'{"flops": 5e10, "precision": "fp32"}\'; exit 1',
        "echo 5e10",
        'echo \'{"flops": "5e10", "precision": "fp32"}\'',
        'echo \'{"flops": 5e10, "precision": "fp4"}\'',
        'echo \'{"flops": 5e10, "precision": "fp32", "more": 1}\'',
        'echo \'{"flops": NaN, "precision": "fp32"}\'',
        'echo \'{"flops": 0, "precision": "fp32"}\'',
        'echo \'{"flops": -5e10, "precision": "fp32"}\'',
        'echo \'{"flops": 1e300, "precision": "fp32"}\'',
        'echo \'{"flops": 5e10, "precision": "fp32"}\'; echo warning',
        "printf '\\377'",
        'echo \'{"flops": 5e10, "precision": "fp32"}\'; exec sleep 60',
    ],
)
def test_a_child_that_fails_or_talks_nonsense_leaves_the_estimate(child, text):
    child(text)
    assert measure_rate(2, timeout=1 if "sleep" in text else 30) is None


@pytest.mark.parametrize("executable", ["", None, "/nowhere/python"])
def test_without_a_python_to_start_there_is_no_rate(monkeypatch, child, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert measure_rate(2) is None


def test_a_busy_machine_is_not_measured(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine_module.subprocess, "run", lambda *words, **options: pytest.fail("a child was started"))
    monkeypatch.setattr(os, "getloadavg", lambda: (2.1, 0.0, 0.0))
    assert measure_rate(4) is None
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 9.0, 9.0))
    assert not is_busy()


@pytest.mark.parametrize(("rate", "source"), [(123e9, "measured"), (None, "estimated")])
def test_a_machine_says_how_its_rate_is_known(monkeypatch, tmp_path, rate, source):
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(machine_module, "measure_rate", lambda cores: asked.append(cores) or rate)
    machine = measure_machine("cpu", measure_rate=True)
    assert asked == [machine.cores]
    assert (machine.flops, machine.flops_source) == (rate or estimate_rate(machine.cores), source)


def test_a_rate_is_measured_only_when_asked_and_only_of_a_cpu(monkeypatch):
    monkeypatch.setattr(machine_module, "measure_rate", lambda cores: pytest.fail("a rate was measured"))
    monkeypatch.setattr(machine_module, "_ask_gpu", lambda: ("H100", 80 * 10**9))
    assert measure_machine("cpu").flops_source == "estimated"
    assert measure_machine("auto", measure_rate=True).flops_source == "unknown"
    assert measure_machine(memory=10**9, measure_rate=True).flops_source == "unknown"


@pytest.fixture
def count_measurements(monkeypatch, tmp_path):
    """An empty home, and rates that count up instead of being measured."""
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(machine_module, "measure_rate", lambda cores: asked.append(cores) or 1e10 * len(asked))
    return asked


def test_a_rate_is_measured_once_for_a_machine_and_its_cores(count_measurements, tmp_path):
    assert [find_rate(2), find_rate(2), find_rate(3), find_rate(3)] == [1e10, 1e10, 2e10, 2e10]
    (tmp_path / ".cache" / "autoseg" / "machine.json").unlink()
    assert find_rate(3) == 3e10
    assert count_measurements == [2, 3, 3]


@pytest.mark.parametrize("text", ["", "{", '{"cpu": 1}', '{"cpu": "x", "cores": 2, "autoseg_version": "0", "flops": 5e10}'])
def test_a_rate_kept_for_another_machine_or_torn_is_measured_again(count_measurements, tmp_path, text):
    path = tmp_path / ".cache" / "autoseg" / "machine.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert find_rate(2) == 1e10
    assert find_rate(2) == 1e10
    assert count_measurements == [2]


def test_a_home_that_cannot_be_written_to_costs_the_rate_no_more_than_its_memory(count_measurements, tmp_path):
    (tmp_path / ".cache").write_text("a file where the folder should be")
    assert [find_rate(2), find_rate(2)] == [1e10, 2e10]


def test_a_rate_that_could_not_be_measured_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(machine_module, "measure_rate", lambda cores: None)
    assert find_rate(2) is None
    assert not (tmp_path / ".cache").exists()
