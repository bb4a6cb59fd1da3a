"""The fastest precision and layout of this machine, found by timing real steps."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from autoseg.io.machine import read_cpu_flags
from autoseg.networks.devices import Compute
from autoseg.records.machine import DeviceName, PrecisionName
from autoseg.records.plan import Configuration
from autoseg.training.loader import Batch, Loader
from autoseg.training.trainer import group_batches, start_state, take_step

CANDIDATES: dict[DeviceName, tuple[tuple[PrecisionName, bool], ...]] = {
    "cpu": (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)),
    "cuda": (("bf16", False), ("bf16", True), ("fp32", False)),
    "mps": (("fp32", False),),
}
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of CPUs that compute in bf16; others imitate it, slowly and at times wrongly
HOPELESS = 1.6  # a candidate that takes this many times the best one's is given up
TIMED_STEPS = 6
LONGEST_SECONDS = 20.0  # of timing, where steps are slow
FINAL_STEPS = 8


def time_candidates(
    configuration: Configuration, channels: int, classes: int, loader: Loader, precision: str = "auto"
) -> dict[Compute, float]:
    """Seconds per step of each candidate for the loader's device (of the `precision` asked for), the fastest first.

    Only the network's part is timed. The candidates take turns, so that other work on the machine slows all of them, and each counts with
    its fastest step; those far behind are given up. The first step of each, which sets things up, is left out.
    """
    batch = loader.make_batch(loader.read(0))
    device = loader.compute.device
    computes = [
        Compute(device, name, last) for name, last in CANDIDATES[device] if precision == name or _is_worth_trying(name, device, precision)
    ]
    steps = {compute: _make_step(configuration, channels, classes, batch, compute) for compute in computes}
    timed = dict.fromkeys(steps, float("inf"))
    begun = time.perf_counter()
    for number in range(TIMED_STEPS):
        if number and time.perf_counter() - begun > LONGEST_SECONDS:
            break
        for compute, step in list(steps.items()):
            timed[compute] = min(timed[compute], step())
        best = min(timed.values())
        steps = {compute: step for compute, step in steps.items() if timed[compute] <= HOPELESS * best}
    return dict(sorted(timed.items(), key=lambda item: item[1]))


def _is_worth_trying(name: PrecisionName, device: DeviceName, precision: str) -> bool:
    """Without being asked for: every precision that the device computes in itself."""
    return precision == "auto" and (device != "cpu" or name != "bf16" or bool(BF16_FLAGS & read_cpu_flags()))


def _make_step(configuration: Configuration, channels: int, classes: int, batch: Batch, compute: Compute) -> Callable[[], float]:
    """A function that takes one step with a network of its own and returns the seconds it took; one step is taken at once."""
    state = start_state(configuration, channels, classes, 0, compute)
    placed = replace(batch, images=compute.place(batch.images))

    def step() -> float:
        begun = time.perf_counter()
        take_step(state, [placed] * configuration.accumulation, configuration, compute)
        return time.perf_counter() - begun

    step()
    return step


def time_steps(configuration: Configuration, channels: int, classes: int, loader: Loader) -> float:
    """Median seconds of a whole step, data included, on a throw-away network."""
    state = start_state(configuration, channels, classes, 0, loader.compute)
    seconds = []
    begun = start = time.perf_counter()
    for batches in group_batches(loader, configuration.accumulation, 0, FINAL_STEPS + 1):
        take_step(state, batches, configuration, loader.compute)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        if len(seconds) > 1 and start - begun > LONGEST_SECONDS:
            break
    return statistics.median(seconds[1:])
