"""What this machine has: cores, memory, a GPU. The GPU's driver is asked directly, so planning needs no torch."""

import os
import platform
from pathlib import Path

import psutil

from autoseg.errors import InputError
from autoseg.records.machine import Machine

# Floating point operations per second and core that training sustains, by instruction set. Measured with benchmarks/cpu_rate.py on
# 3D convolutions of 16 to 64 channels; marked as estimated in the plan.
FLOPS_PER_CORE = (("amx_bf16", 300e9), ("avx512_bf16", 150e9), ("avx512f", 35e9), ("avx2", 25e9), ("", 15e9))


def count_cores() -> int:
    """Cores this process may use: affinity, then the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def measure_memory() -> int:
    """Bytes of memory this process may use: the host's, or the container's limit where that is smaller."""
    total = psutil.virtual_memory().total
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return total if limit == "max" else min(total, int(limit))


def read_cpu_flags() -> set[str]:
    """Instruction sets by their names in /proc/cpuinfo; empty where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _ask_gpu() -> tuple[str, int] | None:
    """Name and memory of the first NVIDIA GPU, from its driver's library; None where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return str(pynvml.nvmlDeviceGetName(handle)), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def measure_machine(device: str = "auto", memory: int | None = None) -> Machine:
    """The machine to plan for.

    `memory` (bytes) stands for a GPU of that size, whatever is here. Raises InputError where a GPU is asked for and none answers.
    """
    if memory is not None and device != "cpu":
        return Machine(device="cuda", name=f"a GPU of {memory / 1e9:.3g} GB", memory=memory, cores=count_cores())
    gpu = _ask_gpu() if device in ("auto", "cuda") else None
    if gpu is not None:
        return Machine(device="cuda", name=gpu[0], memory=gpu[1], cores=count_cores())
    if device == "cuda":
        raise InputError(
            "No NVIDIA GPU answers.", todo="Leave --device out to plan for the CPU, or give --memory 8GB to plan for a GPU elsewhere."
        )
    if device == "mps":
        return Machine(device="mps", name=platform.processor() or "Apple GPU", memory=measure_memory() // 2, cores=count_cores())
    flags, cores = read_cpu_flags(), count_cores()
    rate = next(rate for name, rate in FLOPS_PER_CORE if not name or name in flags)
    return Machine(
        device="cpu",
        name=platform.processor() or platform.machine(),
        memory=memory if memory is not None else measure_memory(),
        cores=cores,
        flops=rate * cores,
        flops_source="estimated",
    )
