"""The fastest way to take a step on this machine (precision, layout, compilation, threads), found by timing real steps."""

import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from autoseg.io.machine import read_cpu_flags
from autoseg.networks.devices import Compute
from autoseg.records.machine import DeviceName, PrecisionName
from autoseg.records.plan import Configuration
from autoseg.training.loader import Batch, Loader
from autoseg.training.trainer import group_batches, start_state, take_step

Key = TypeVar("Key", bound=Hashable)

CANDIDATES: dict[DeviceName, tuple[tuple[PrecisionName, bool], ...]] = {
    "cpu": (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)),
    "cuda": (("bf16", False), ("bf16", True), ("fp16", False), ("fp16", True), ("fp32", False)),
    "mps": (("fp32", False),),
}
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of CPUs that compute in bf16; others imitate it, slowly and at times wrongly
HOPELESS = 1.6  # a candidate that takes this many times the best one's is given up
TIMED_STEPS = 6
LONGEST_SECONDS = 20.0  # of timing, where steps are slow
WORTH_COMPILING = 0.95  # of the time of a plain step, above which compilation is not worth its minute
FINAL_STEPS = 8


def time_candidates(
    configuration: Configuration, channels: int, classes: int, loader: Loader, precision: str = "auto"
) -> dict[Compute, float]:
    """Seconds per step of each candidate for the loader's device (of the `precision` asked for), the fastest first.

    Only the network's part is timed. The first step of each, which sets things up, is left out. On CUDA the fastest is compiled as well,
    where that starts, and comes first where it is worth it.
    """
    batch = loader.make_batch(loader.read(0))
    device = loader.compute.device
    computes = [
        Compute(device, name, last) for name, last in CANDIDATES[device] if precision == name or _is_worth_trying(name, device, precision)
    ]
    timed = _take_turns({compute: _make_step(configuration, channels, classes, batch, compute) for compute in computes})
    if device == "cuda" and timed:
        timed |= _time_compiled(configuration, channels, classes, batch, min(timed, key=lambda compute: timed[compute]))
    return dict(sorted(timed.items(), key=lambda item: item[1] / (WORTH_COMPILING if item[0].compiled else 1.0)))


def _take_turns(steps: dict[Key, Callable[[], float]]) -> dict[Key, float]:
    """Seconds of the fastest step of each: they take turns, so that other work on the machine slows all of them; the hopeless end early."""
    timed = dict.fromkeys(steps, float("inf"))
    begun = time.perf_counter()
    for number in range(TIMED_STEPS):
        if number and time.perf_counter() - begun > LONGEST_SECONDS:
            break
        for key, step in list(steps.items()):
            timed[key] = min(timed[key], step())
        best = min(timed.values())
        steps = {key: step for key, step in steps.items() if timed[key] <= HOPELESS * best}
    return timed


def _time_compiled(configuration: Configuration, channels: int, classes: int, batch: Batch, plain: Compute) -> dict[Compute, float]:
    """The same for a compiled network; infinity where the compiler does not start, whatever its reason."""
    compute = replace(plain, compiled=True)
    try:
        return _take_turns({compute: _make_step(configuration, channels, classes, batch, compute)})
    except Exception:  # compilers fail in many ways, and the plain step is there
        return {compute: float("inf")}


def time_threads(configuration: Configuration, channels: int, classes: int, loader: Loader, counts: Sequence[int]) -> dict[int, float]:
    """Seconds of a step with each number of threads; the fewest first where they are as fast."""
    batch = loader.make_batch(loader.read(0))
    step = _make_step(configuration, channels, classes, batch, loader.compute)

    def with_threads(count: int) -> Callable[[], float]:
        def timed() -> float:
            torch.set_num_threads(count)
            return step()

        return timed

    before = torch.get_num_threads()
    try:
        timed = _take_turns({count: with_threads(count) for count in sorted(set(counts))})
    finally:
        torch.set_num_threads(before)
    return dict(sorted(timed.items(), key=lambda item: item[1]))


def _is_worth_trying(name: PrecisionName, device: DeviceName, precision: str) -> bool:
    """Without being asked for: every precision that the device computes in itself; of the two of 16 bits the one that needs no scaling."""
    if precision != "auto":
        return False
    if device == "cpu":
        return name != "bf16" or bool(BF16_FLAGS & read_cpu_flags())
    if device == "cuda" and name != "fp32":
        return (name == "bf16") == torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def _make_step(configuration: Configuration, channels: int, classes: int, batch: Batch, compute: Compute) -> Callable[[], float]:
    """A function that takes one step with a network of its own and returns the seconds it took; one step is taken at once."""
    state = start_state(configuration, channels, classes, 0, compute)
    placed = replace(batch, images=compute.place(batch.images))

    def step() -> float:
        begun = time.perf_counter()
        take_step(state, [placed] * configuration.accumulation, configuration, compute).loss.item()  # waits for a GPU
        return time.perf_counter() - begun

    step()
    return step


def time_steps(configuration: Configuration, channels: int, classes: int, loader: Loader) -> float:
    """Median seconds of a whole step, data included, on a throw-away network."""
    state = start_state(configuration, channels, classes, 0, loader.compute)
    seconds = []
    begun = start = time.perf_counter()
    for batches in group_batches(loader, configuration.accumulation, 0, FINAL_STEPS + 1):
        take_step(state, batches, configuration, loader.compute).loss.item()
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        if len(seconds) > 1 and start - begun > LONGEST_SECONDS:
            break
    return statistics.median(seconds[1:])
