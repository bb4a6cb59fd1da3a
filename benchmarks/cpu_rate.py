"""Operations per second that training sustains on this CPU: the constants of autoseg/io/machine.py come from here.

python benchmarks/cpu_rate.py
"""

import statistics
import time

import torch
from machine import save

from autoseg.io.machine import count_cores
from autoseg.networks.devices import Compute, use_cores
from autoseg.planning.cost import count_operations
from autoseg.records.plan import Configuration, NetworkSpec
from autoseg.training.loader import Batch
from autoseg.training.trainer import start_state, take_step

PATCH = (32, 48, 32)
SPEC = NetworkSpec(
    kind="plain",
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 4,
    features=(16, 32, 64, 128),
    convolutions=(1, 2, 2, 2),
    decoder_convolutions=(1, 1, 1),
)


def measure(compute: Compute, configuration: Configuration) -> float:
    """Median seconds of a step on random data, batch 2."""
    state = start_state(configuration, 1, 3, 0, compute)
    batch = Batch(compute.place(torch.randn(2, 1, *PATCH)), torch.randint(0, 3, (2, *PATCH)), ("", ""))
    seconds = []
    for _ in range(12):
        begun = time.perf_counter()
        take_step(state, batch, configuration, compute)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[2:])


def main() -> None:
    from autoseg.io.profiles import read_profile
    from autoseg.records.plan import AugmentationSpec, LossSpec, MemoryEstimate, OptimizerSpec, ScheduleSpec

    profile = read_profile("autoseg-cpu")
    configuration = Configuration(
        name="3d_fullres",
        spacing=(1.0, 1.0, 1.0),
        median_shape=PATCH,
        patch_size=PATCH,
        batch_size=2,
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
    operations = 2 * count_operations(SPEC, PATCH, 1, 3)
    rows = {}
    for precision in ("fp32", "bf16"):
        for channels_last in (False, True):
            with use_cores(count_cores()):
                seconds = measure(Compute("cpu", precision, channels_last), configuration)
            rows[f"{precision} {'channels-last' if channels_last else 'contiguous'}"] = {
                "seconds_per_step": seconds,
                "operations_per_second_and_core": operations / seconds / count_cores(),
            }
    save("cpu_rate", rows)


if __name__ == "__main__":
    main()
