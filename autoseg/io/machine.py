"""What this machine has: cores, memory, a GPU, a step rate. The GPU's driver is asked directly, so planning needs no torch."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from autoseg import __version__
from autoseg.errors import AutosegError, InputError
from autoseg.io.files import write_bytes
from autoseg.records.machine import Machine

# Floating point operations per second and core that training sustains, by instruction set. Measured with benchmarks/cpu_rate.py on
# 3D convolutions of 16 to 64 channels; marked as estimated in the plan.
FLOPS_PER_CORE = (("amx_bf16", 300e9), ("avx512_bf16", 150e9), ("avx512f", 55e9), ("avx2", 25e9), ("", 15e9))
PLAUSIBLE = (1e8, 1e13)  # operations per second and core that a CPU may sustain; anything else was not measured well
RATE_SECONDS = 60.0
BUSY = 0.5  # load per core of the whole machine, over the last minute, above which a measured rate would be that of the others


class _KnownRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rate that was measured before, by this version on this CPU."""

    cpu: str
    cores: int
    autoseg_version: str
    flops: float


class _Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What autoseg/networks/rate.py writes."""

    flops: float
    precision: Literal["fp32", "bf16"]


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


def is_busy() -> bool:
    """Whether others compute on this machine, as far as the system tells (Windows does not)."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def measure_rate(cores: int, timeout: float = RATE_SECONDS) -> float | None:
    """Operations per second that training sustains on `cores` cores, measured by a child process; None where it says nothing usable.

    It takes a few seconds, most of them torch's start. Other work would lower the rate, so a busy machine is not measured.
    """
    if not sys.executable or is_busy():
        return None
    command = [sys.executable, "-m", "autoseg.networks.rate", str(cores)]
    try:  # started where the package lies, so that neither a source tree nor files of the user's folder change what is imported
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=True, cwd=Path(__file__).parents[2]
        )
        last = b"".join(child.stdout.splitlines()[-1:])  # a library may have written something before it
        rate = msgspec.json.decode(last, type=_Rate)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return None
    low, high = PLAUSIBLE
    return float(f"{rate.flops:.2g}") if low <= rate.flops / cores <= high else None  # more digits would only be noise


def find_rate(cores: int) -> float | None:
    """The rate measured before on this machine, else now and kept in `~/.cache/autoseg/machine.json` (which may be deleted)."""
    path = Path.home() / ".cache" / "autoseg" / "machine.json"
    this = _KnownRate(read_cpu_name(), cores, __version__, 0.0)
    try:
        known = msgspec.json.decode(path.read_bytes(), type=_KnownRate)
    except (OSError, msgspec.DecodeError):
        known = this
    if known.flops > 0 and msgspec.structs.replace(known, flops=0.0) == this:
        return known.flops
    rate = measure_rate(cores)
    if rate is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, msgspec.json.encode(msgspec.structs.replace(this, flops=rate)))
        except (AutosegError, OSError):
            return rate  # a home that cannot be written to: measured again next time
    return rate


def read_cpu_name() -> str:
    """The processor's name as it is sold, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure_machine(device: str = "auto", memory: int | None = None, measure_rate: bool = False) -> Machine:
    """The machine to plan for.

    `memory` (bytes) stands for a GPU of that size, whatever is here. With `measure_rate` a CPU's step rate is measured (seconds), else and
    where that fails it is estimated by instruction set. Raises InputError where a GPU is asked for and none answers.
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
    return _describe_cpu(memory, measure_rate)


def _describe_cpu(memory: int | None, measured: bool) -> Machine:
    cores = count_cores()
    rate = find_rate(cores) if measured else None
    return Machine(
        device="cpu",
        name=read_cpu_name(),
        memory=memory if memory is not None else measure_memory(),
        cores=cores,
        flops=estimate_rate(cores) if rate is None else rate,
        flops_source="estimated" if rate is None else "measured",
    )


def estimate_rate(cores: int) -> float:
    """Operations per second that training sustains on a CPU with this one's instruction sets, from the table."""
    flags = read_cpu_flags()
    return cores * next(rate for name, rate in FLOPS_PER_CORE if not name or name in flags)
