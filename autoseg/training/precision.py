"""The fastest precision and layout of this machine, found by timing real steps."""

import statistics
import time
from dataclasses import replace

from autoseg.networks.devices import Compute, DeviceName
from autoseg.records.plan import Configuration
from autoseg.training.loader import Loader
from autoseg.training.trainer import start_state, take_step

CANDIDATES: dict[DeviceName, tuple[tuple[str, bool], ...]] = {
    "cpu": (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)),
    "cuda": (("bf16", False), ("bf16", True), ("fp32", False)),
    "mps": (("fp32", False),),
}
HOPELESS = 1.5  # a candidate whose first steps take this many times the best one's is given up
TIMED_STEPS = 4
FINAL_STEPS = 8


def time_candidates(
    configuration: Configuration, channels: int, classes: int, loader: Loader, precision: str = "auto"
) -> dict[Compute, float]:
    """Seconds per step of each candidate for the loader's device (of the `precision` asked for), the fastest first.

    Only the network's part is timed here; the first step, which sets things up, is left out.
    """
    timed: dict[Compute, float] = {}
    batch = loader.make_batch(loader.read(0))
    for name, channels_last in CANDIDATES[loader.compute.device]:
        if precision not in ("auto", name):
            continue
        compute = Compute(loader.compute.device, name, channels_last)  # type: ignore[arg-type]
        state = start_state(configuration, channels, classes, 0, compute)
        placed = replace(batch, images=compute.place(batch.images))
        take_step(state, placed, configuration, compute)
        seconds = []
        for _ in range(TIMED_STEPS):
            start = time.perf_counter()
            take_step(state, placed, configuration, compute)
            seconds.append(time.perf_counter() - start)
            if timed and seconds[-1] > HOPELESS * min(timed.values()):
                break
        timed[compute] = min(seconds)
    return dict(sorted(timed.items(), key=lambda item: item[1]))


def time_steps(configuration: Configuration, channels: int, classes: int, loader: Loader) -> float:
    """Median seconds of a whole step, data included, on a throw-away network."""
    state = start_state(configuration, channels, classes, 0, loader.compute)
    seconds = []
    start = time.perf_counter()
    for batch in loader.iterate(0, FINAL_STEPS + 1):
        take_step(state, batch, configuration, loader.compute)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return statistics.median(seconds[1:])
