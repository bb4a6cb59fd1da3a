"""Seconds per sample of augmentation on one CPU thread: ours, batchgenerators and batchgeneratorsv2, the same recipe, in turn in one run.

OMP_NUM_THREADS=1 python benchmarks/augmentation.py HIPPOCAMPUS PYTHON_WITH_BATCHGENERATORSV2 [BATCHES]

nnU-Net's batch of the hippocampus (patch 40x56x40, batch 9), AugmentationSpec as it is by default, images linear and labels nearest on all
sides. Each side starts from arrays in memory: ours from the boxes it has read, the others from nnU-Net's enlarged patches. Reading is left
out everywhere; drawing what is done is counted everywhere (ours also draws the place). Ours is timed by the batch, as it is used; the
others by the sample, as they are.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from machine import save

from autoseg.commands.job import Job, TrainOptions, make_loader
from autoseg.commands.plan import PlanOptions, plan
from autoseg.commands.prepare import prepare
from autoseg.io.run_folder import RunFolder, choose_configuration
from autoseg.networks.devices import Compute
from autoseg.progress import Silent
from autoseg.records.plan import AugmentationSpec
from autoseg.training.reference_loader import ReferenceLoader
from autoseg.training.reference_recipe import augment, read_around

PATCH, BATCH = (40, 56, 40), 9
BATCHES = 30  # 270 samples


def make_job(scans: Path, folder: Path) -> Job:
    """A run of the scans with nnU-Net's patch and batch."""
    plan(scans, folder / "run", PlanOptions(profile="nnunet", device="cpu"))
    run = RunFolder(folder / "run")
    configuration = msgspec.structs.replace(
        choose_configuration(run.load_plan(), "3d_fullres"), patch_size=PATCH, batch_size=BATCH, augmentation=AugmentationSpec()
    )
    store = prepare(run.path, "3d_fullres")
    fold = run.load_splits().folds[0]
    return Job(run, run.load_plan(), run.load_dataset(), configuration, 0, fold, run.fold("3d_fullres", 0), store, TrainOptions(), Silent())


class Ours:
    """A batch of `Loader` from boxes already read."""

    def __init__(self, job: Job) -> None:
        self.loader = make_loader(job, Compute("cpu"), 0)

    def time_batch(self, step: int) -> list[float]:
        boxes = [self.loader.read_box(sample) for sample in self.loader.draw(step)]
        begun = time.perf_counter()
        batch = self.loader.make_batch(self.loader.assemble(self.loader.draw(step), boxes))
        seconds = time.perf_counter() - begun
        assert batch.images.shape == (BATCH, 1, *PATCH)
        return [seconds / BATCH] * BATCH


class Reference:
    """batchgenerators, sample by sample, from enlarged patches already read."""

    def __init__(self, job: Job) -> None:
        ours = make_loader(job, Compute("cpu"), 0)
        self.loader = ReferenceLoader(ours.store, ours.sampler, ours.compute)

    def time_batch(self, step: int) -> list[float]:
        seconds = []
        for draft in self.loader.draft(step):
            image, label = read_around(draft)
            begun = time.perf_counter()
            made, _ = augment(image, label, draft)
            seconds.append(time.perf_counter() - begun)
            assert made.shape == (1, *PATCH)
        return seconds


class Second:
    """batchgeneratorsv2 in a process of its own, sample by sample, from the same enlarged patches."""

    def __init__(self, job: Job, python: Path, folder: Path, reference: Reference, batches: int) -> None:
        read = [read_around(draft) for step in range(batches) for draft in reference.loader.draft(step)]
        spec = msgspec.to_builtins(job.configuration.augmentation)
        task = json.dumps({"spec": spec, "patch": PATCH, "axes": job.configuration.mirror_axes})
        np.savez(
            folder / "boxes.npz", images=np.stack([image for image, _ in read]), labels=np.stack([label for _, label in read]), task=task
        )
        line = [str(python), str(Path(__file__).with_name("reference_v2.py")), str(folder / "boxes.npz")]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        versions = "import torch, importlib.metadata as m; print(m.version('batchgeneratorsv2'), torch.__version__)"
        told = subprocess.run([str(python), "-c", versions], capture_output=True, text=True, check=True).stdout.split()
        self.versions = dict(zip(("batchgeneratorsv2", "torch"), told))

    def time_batch(self, step: int) -> list[float]:
        seconds = []
        for place in range(BATCH):
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(f"{step * BATCH + place}\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            assert answer["shape"] == [1, *PATCH]
            seconds.append(answer["seconds"])
        return seconds


def measure(sides: dict[str, Any], batches: int) -> dict[str, list[float]]:
    """Seconds of every sample by side; the sides take turns batch by batch, so that all meet the same machine. The first warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(batches):
        for name, side in sides.items():
            each = side.time_batch(step)
            seconds[name] += each if step else []
    return seconds


def main() -> None:
    scans, python = Path(sys.argv[1]), Path(sys.argv[2])
    batches = int(sys.argv[3]) if len(sys.argv) > 3 else BATCHES
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = make_job(scans, folder)
        reference = Reference(job)
        second = Second(job, python, folder, reference, batches)
        seconds = measure({"autoseg": Ours(job), "batchgenerators": reference, "batchgeneratorsv2": second}, batches)
        second.process.stdin.close()  # type: ignore[union-attr]
        second.process.wait()
    median = {side: statistics.median(values) for side, values in seconds.items()}
    mean = {side: statistics.mean(values) for side, values in seconds.items()}
    others = [side for side in median if side != "autoseg"]
    save(
        "augmentation",
        {
            "patch": PATCH,
            "batch": BATCH,
            "samples": len(seconds["autoseg"]),
            "threads": 1,
            "orders": {"image": "linear", "label": "nearest"},
            "seconds_per_sample_median": median,
            "seconds_per_sample_mean": mean,
            "speed_up_by_medians": {side: median[side] / median["autoseg"] for side in others},
            "speed_up_by_means": {side: mean[side] / mean["autoseg"] for side in others},
            "versions": {"batchgenerators": metadata.version("batchgenerators"), **second.versions},
        },
    )


if __name__ == "__main__":
    main()
