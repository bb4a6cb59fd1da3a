"""Operations per second that training sustains on this CPU: the constants of autoseg/io/machine.py come from here.

The step is that of autoseg/networks/rate.py, which planning starts for its own short measurement; here every precision and layout has its
turn, for longer, and the trainer's own step on the same network stands beside it to show that the two agree.

python benchmarks/cpu_rate.py
"""

import statistics
import time

import torch
from machine import save

from autoseg.io.machine import count_cores, estimate_rate, measure_rate
from autoseg.io.profiles import read_profile
from autoseg.networks.devices import Compute, use_cores
from autoseg.networks.rate import BATCH, CHANNELS, CLASSES, OPERATIONS, PATCH, SPEC, TimedStep
from autoseg.records.plan import AugmentationSpec, Configuration, LossSpec, MemoryEstimate, OptimizerSpec, ScheduleSpec
from autoseg.training.loader import Batch
from autoseg.training.trainer import start_state, take_step

STEPS = 12


def make_configuration() -> Configuration:
    """The fixed network with the CPU profile's optimiser; what a step does not use is left empty."""
    profile = read_profile("autoseg-cpu")
    return Configuration(
        name="3d_fullres",
        spacing=(1.0, 1.0, 1.0),
        median_shape=PATCH,
        patch_size=PATCH,
        batch_size=BATCH,
        steps_per_epoch=250,
        normalization=(),
        network=SPEC,
        batch_dice=True,
        loss=LossSpec(),
        optimizer=OptimizerSpec(name=profile.optimizer, learning_rate=profile.learning_rate, weight_decay=profile.weight_decay),
        schedule=ScheduleSpec(name="cosine", warmup=0.0, averaging=0.0, epochs=1, minutes=1.0),
        augmentation=AugmentationSpec(),
        mirror_axes=(),
        memory=MemoryEstimate(training_bytes=0, prediction_bytes=0),
        reasons={},
    )


def time_trainer(compute: Compute, configuration: Configuration) -> list[float]:
    """Seconds of each of the trainer's steps on random data."""
    state = start_state(configuration, CHANNELS, CLASSES, 0, compute)
    batch = Batch(compute.place(torch.randn(BATCH, CHANNELS, *PATCH)), torch.randint(0, CLASSES, (BATCH, *PATCH)), ("", ""))
    seconds = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        take_step(state, [batch], configuration, compute)
        seconds.append(time.perf_counter() - begun)
    return seconds


def describe(seconds: list[float]) -> dict[str, float]:
    """Median and fastest step, the first two left out, and the rate of the median."""
    median = statistics.median(seconds[2:])
    return {
        "seconds_per_step": median,
        "fastest_seconds_per_step": min(seconds[2:]),
        "operations_per_second_and_core": OPERATIONS / median / count_cores(),
    }


def main() -> None:
    cores, configuration, rows = count_cores(), make_configuration(), {}
    for precision in ("fp32", "bf16"):
        for channels_last in (False, True):
            compute = Compute("cpu", precision, channels_last)
            with use_cores(cores):
                step = TimedStep(compute)
                plain, trainer = [step() for _ in range(STEPS)], time_trainer(compute, configuration)
            name = f"{precision} {'channels-last' if channels_last else 'contiguous'}"
            rows[name] = {"step": describe(plain), "trainer": describe(trainer)}
    child = measure_rate(cores)
    rows["as planned with"] = {
        "measured_operations_per_second_and_core": child / cores if child else None,
        "estimated_operations_per_second_and_core": estimate_rate(cores) / cores,
    }
    save("cpu_rate", rows)


if __name__ == "__main__":
    main()
