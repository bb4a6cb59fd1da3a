"""Bytes of a training step, estimated (autoseg/planning/memory.py) and measured, on networks of many shapes.

python benchmarks/memory_table.py [DEVICE]                       (without DEVICE: a GPU where there is one, and the CPU)

On the CPU: all tensors that the graph of one step holds, all tensors that live at once at the step's peak (torch's own allocation
records), and how far the process grows. On a GPU: the allocator's own peaks.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import save

from autoseg.networks.devices import Compute
from autoseg.planning.memory import Footprint, Workload, estimate_training
from autoseg.records.plan import (
    AugmentationSpec,
    Configuration,
    LossSpec,
    MemoryEstimate,
    NetworkSpec,
    OptimizerSpec,
    ScheduleSpec,
)
from autoseg.training.checkpoints import TrainingState
from autoseg.training.loader import Batch
from autoseg.training.losses import compute_loss
from autoseg.training.trainer import start_state, take_step

WIDTHS = {2: 512, 3: 320}
BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
SIZE_MEASURED = 0.3e9  # bytes of an estimate from which the growth of a process says something


def make_network(kind: str, first: int, pooled: str, dimension: int = 3, decoder: int = 1) -> NetworkSpec:
    """nnU-Net's widths from `first` on; `pooled` has a digit per deeper stage: 2 halves all axes, 1 all but the first."""
    strides = ((1,) * dimension, *((2,) * dimension if digit == "2" else (1, *(2,) * (dimension - 1)) for digit in pooled))
    stages = len(strides)
    thin = ((1, *(3,) * (dimension - 1)), (3,) * dimension)
    return NetworkSpec(
        kind=kind,
        strides=strides,
        kernel_sizes=tuple(thin[0] if digit == "1" else thin[1] for digit in (*pooled, "2")),
        features=tuple(min(first * 2**stage, WIDTHS[dimension]) for stage in range(stages)),
        convolutions=(2,) * stages if kind == "plain" else (),
        blocks=BLOCKS[:stages] if kind == "residual_encoder" else (),
        decoder_convolutions=(decoder,) * (stages - 1),
    )


PLAIN, RESIDUAL = "plain", "residual_encoder"
SMALL = {  # on a CPU
    "2d": Workload(make_network(PLAIN, 32, "2222", 2, 2), (160, 160), 4, 1, 3),
    "2d, 3 channels, deep": Workload(make_network(PLAIN, 32, "222222", 2, 2), (256, 256), 3, 3, 2),
    "2d, 118 classes": Workload(make_network(PLAIN, 16, "2222", 2, 2), (192, 192), 2, 1, 118),
    "2d, elongated": Workload(make_network(PLAIN, 32, "1122", 2, 2), (64, 320), 4, 1, 4),
    "3d": Workload(make_network(PLAIN, 32, "222", 3, 2), (32, 64, 48), 2, 1, 3),
    "3d, one sample": Workload(make_network(PLAIN, 32, "2222", 3, 2), (48, 64, 48), 1, 1, 3),
    "3d, 4 channels": Workload(make_network(PLAIN, 16, "222", 3, 1), (48, 48, 48), 2, 4, 4),
    "3d, anisotropic": Workload(make_network(PLAIN, 32, "1122", 3, 2), (8, 64, 64), 2, 1, 2),
    "3d, 118 classes": Workload(make_network(PLAIN, 16, "222", 3, 1), (40, 48, 40), 1, 1, 118),
    "2d residual": Workload(make_network(RESIDUAL, 32, "2222", 2), (128, 128), 2, 1, 3),
    "2d residual, 118 classes": Workload(make_network(RESIDUAL, 16, "222", 2), (128, 160), 2, 2, 118),
    "3d residual": Workload(make_network(RESIDUAL, 32, "222", 3), (32, 48, 48), 2, 1, 3),
    "3d residual, anisotropic": Workload(make_network(RESIDUAL, 32, "1222", 3), (16, 64, 64), 1, 2, 3),
    "3d residual, 40 classes": Workload(make_network(RESIDUAL, 16, "222", 3), (40, 48, 40), 1, 1, 40),
}
LARGE = {  # on a GPU
    "3d": Workload(make_network(PLAIN, 32, "22222", 3, 2), (128, 128, 128), 2, 1, 3),
    "3d, large": Workload(make_network(PLAIN, 32, "22222", 3, 2), (160, 192, 160), 2, 1, 3),
    "3d, 118 classes": Workload(make_network(PLAIN, 32, "22222", 3, 2), (128, 128, 128), 2, 1, 118),
    "3d, anisotropic": Workload(make_network(PLAIN, 32, "12222", 3, 2), (48, 192, 192), 2, 2, 4),
    "3d residual": Workload(make_network(RESIDUAL, 32, "22222", 3), (128, 128, 128), 2, 1, 3),
    "3d residual, anisotropic": Workload(make_network(RESIDUAL, 32, "12222", 3), (48, 192, 192), 2, 1, 15),
    "3d residual, one sample": Workload(make_network(RESIDUAL, 32, "22222", 3), (160, 160, 160), 1, 4, 4),
    "2d": Workload(make_network(PLAIN, 32, "222222", 2, 2), (512, 512), 12, 1, 3),
    "2d, 118 classes": Workload(make_network(PLAIN, 32, "222222", 2, 2), (512, 512), 8, 1, 118),
    "2d residual": Workload(make_network(RESIDUAL, 32, "222222", 2), (512, 512), 12, 3, 2),
}


def make_configuration(work: Workload) -> Configuration:
    """What a step needs of a configuration."""
    return Configuration(
        name="2d" if len(work.patch) == 2 else "3d_fullres",
        spacing=(1.0,) * len(work.patch),
        median_shape=work.patch,
        patch_size=work.patch,
        batch_size=work.batch,
        steps_per_epoch=1,
        normalization=(),
        network=work.network,
        batch_dice=True,
        loss=LossSpec(),
        optimizer=OptimizerSpec(name=work.optimizer, learning_rate=1e-4, weight_decay=3e-5),
        schedule=ScheduleSpec(name="poly", warmup=0.0, averaging=0.1, epochs=1, minutes=0.0),
        augmentation=AugmentationSpec(),
        mirror_axes=(),
        memory=MemoryEstimate(training_bytes=0, prediction_bytes=0),
        reasons={},
    )


def start(work: Workload) -> tuple[TrainingState, Batch, Compute]:
    """A network with its optimiser, and random data."""
    compute = Compute(work.device, work.precision)
    state = start_state(make_configuration(work), work.channels, work.classes, 0, compute)
    images = compute.place(torch.randn(work.batch, work.channels, *work.patch))
    labels = torch.randint(0, work.classes, (work.batch, *work.patch)).to(compute.device)
    return state, Batch(images, labels, ("",) * work.batch), compute


def measure_saved(work: Workload) -> int:
    """Bytes of all distinct storages that the graph of a step holds, without weights, images and labels."""
    state, batch, compute = start(work)
    own = {tensor.untyped_storage().data_ptr() for tensor in (batch.images, batch.labels, *state.network.parameters())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    state.network.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with compute.autocast():
            logits = state.network(batch.images)
        loss = compute_loss(logits, batch.labels, LossSpec(), True)
    assert torch.isfinite(loss)  # and the graph, and with it every storage, has lived until here
    return sum(size for place, size in kept.items() if place not in own)


def count_standing(state: TrainingState, batch: Batch) -> int:
    """Bytes of what lives between two steps."""
    tensors = [batch.images, batch.labels, *state.average.values()]
    for parameter in state.network.parameters():
        moments = state.optimizer.state[parameter].values()
        tensors += [tensor for tensor in (parameter, *moments) if isinstance(tensor, torch.Tensor)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def measure_tensors(work: Workload) -> int:
    """Bytes of all tensors that live at once at the peak of the second step, weights and optimiser included."""
    state, batch, compute = start(work)
    configuration = make_configuration(work)
    take_step(state, [batch], configuration, compute)
    state.optimizer.zero_grad()  # what was allocated before is not in the records when it is given back
    alive = peak = count_standing(state, batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        take_step(state, [batch], configuration, compute)
    records = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(records, key=lambda record: record.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def read_status(field: str) -> int:
    """Bytes of this process's memory: VmRSS now, VmHWM at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure_growth(work: Workload) -> int:
    """Bytes by which this process grows in two steps."""
    before = read_status("VmRSS")
    state, batch, compute = start(work)
    for _ in range(2):
        take_step(state, [batch], make_configuration(work), compute)
    return read_status("VmHWM") - before


def measure_gpu(work: Workload) -> dict[str, int]:
    """The allocator's peaks over three steps."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    state, batch, compute = start(work)
    for _ in range(3):
        take_step(state, [batch], make_configuration(work), compute)
    return {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}


def describe(work: Workload, footprint: Footprint) -> dict[str, Any]:
    """The row's own part of the table."""
    return {
        "network": work.network.kind,
        "stages": len(work.network.features),
        "patch": work.patch,
        "batch": work.batch,
        "channels": work.channels,
        "classes": work.classes,
        "precision": work.precision,
        "optimizer": work.optimizer,
        "estimated": vars(footprint) | {"total": footprint.total},
    }


def compare(estimated: int, measured: int) -> dict[str, float]:
    return {"estimated": estimated, "measured": measured, "error": estimated / measured - 1}


def make_cpu_row(name: str, work: Workload) -> dict[str, Any]:
    footprint = estimate_training(work)
    row = describe(work, footprint)
    row["saved"] = compare(footprint.activations + footprint.loss, measure_saved(work))
    row["tensors"] = compare(footprint.total, measure_tensors(work))
    if footprint.total > SIZE_MEASURED and work.precision == "fp32":
        words = [sys.executable, __file__, "--growth", name, work.precision]
        row["process"] = compare(footprint.total, int(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    return row


def make_gpu_row(work: Workload) -> dict[str, Any]:
    footprint = estimate_training(work)
    measured = measure_gpu(work)
    return describe(work, footprint) | {kind: compare(footprint.total, value) for kind, value in measured.items()}


def make_tables(devices: list[str]) -> dict[str, Any]:
    rows: dict[str, Any] = {"cpu": {}, "cuda": {}}
    if "cpu" in devices:
        for name, work in SMALL.items():
            for precision in ("fp32", "bf16"):
                rows["cpu"][f"{name}; {precision}"] = make_cpu_row(name, replace(work, precision=precision, optimizer="adamw"))
    if "cuda" in devices and not torch.cuda.is_available():
        rows["cuda"] = "not measured: no GPU here"
    elif "cuda" in devices:
        for name, work in LARGE.items():
            for precision in ("fp32", "bf16"):
                rows["cuda"][f"{name}; {precision}"] = make_gpu_row(replace(work, precision=precision, device="cuda"))
    return rows


def find_worst(rows: dict[str, Any]) -> dict[str, float]:
    """The largest absolute error of every measure."""
    errors: dict[str, float] = {}
    for device, table in rows.items():
        for row in table.values() if isinstance(table, dict) else ():
            for measure, value in row.items():
                if isinstance(value, dict) and "error" in value:
                    key = f"{device} {measure}"
                    errors[key] = max(errors.get(key, 0.0), abs(value["error"]))
    return errors


def main() -> None:
    match sys.argv[1:]:
        case ["--growth", name, precision]:
            print(measure_growth(replace(SMALL[name], precision=precision, optimizer="adamw")))  # type: ignore[arg-type]
        case devices:
            rows = make_tables(devices or ["cpu", "cuda"])
            save("memory", {"largest_errors": find_worst(rows)} | rows)


if __name__ == "__main__":
    main()
