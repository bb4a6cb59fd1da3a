"""Training steps per second on a CPU: nnU-Net and autoseg with nnU-Net's own plan and batch, each by its own command and precision.

python benchmarks/training_steps.py ../shared/data/hippocampus PYTHON_OF_AN_ENVIRONMENT_WITH_NNUNETV2 [STEPS]

nnU-Net runs before and after. A step counts from the end of the last to its own end: waiting for data, augmentation in whatever process,
loss and optimiser included.
"""

import csv
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from machine import save
from peer import Peer

from autoseg.io.run_folder import RunFolder
from autoseg.networks.devices import Compute
from autoseg.networks.norms import NormActivation
from autoseg.records.plan import Configuration
from autoseg.training.loader import Batch, Loader
from autoseg.training.losses import compute_loss
from autoseg.training.sampling import Sampler
from autoseg.training.trainer import start_state

TRAINER = '''"""nnU-Net's trainer, one short epoch, with the time at which each step ended."""
import json, time
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerTimed(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, STEPS, 1
        self.ended = []

    def train_step(self, batch):
        result = super().train_step(batch)
        self.ended.append(time.monotonic())
        return result

    def on_train_end(self):
        super().on_train_end()
        with open(self.output_folder + "/steps.json", "w") as stream:
            json.dump({"ended": self.ended, "batch": self.batch_size, "patch": list(self.configuration_manager.patch_size)}, stream)

    def perform_actual_validation(self, save_probabilities: bool = False):
        pass
'''


def write_splits(peer: Peer) -> Path:
    """One fold that validates one case: its scores are of no interest here."""
    names = sorted(path.name.removesuffix(".nii.gz") for path in (peer.raw / "labelsTr").iterdir())
    path = peer.root / "splits.json"
    path.write_text(json.dumps([{"training": names[1:], "validation": names[:1]}]))
    return path


def measure_reference(peer: Peer, device: str = "cpu") -> dict[str, Any]:
    """Median seconds of nnU-Net's steps after the first two."""
    peer.run("nnUNetv2_train", "1", "3d_fullres", "0", "-tr", "nnUNetTrainerTimed", "-device", device)
    told = json.loads((peer.fold("nnUNetTrainerTimed", "3d_fullres") / "steps.json").read_text())
    seconds = [after - before for before, after in pairwise(told["ended"])][1:]
    return {
        "seconds": statistics.median(seconds),
        "steps": len(seconds),
        "batch": told["batch"],
        "patch": told["patch"],
        "precision": "fp32",
    }


def measure_ours(run: Path, steps: int) -> dict[str, Any]:
    """Median seconds of our steps, from rows of the log between which no whole case was validated."""
    autoseg = str(Path(sys.executable).with_name("autoseg"))
    words = ["train", str(run), "--fold", "0", "--configuration", "3d_fullres", "--steps", str(steps)]
    subprocess.run([autoseg, *words], check=True)
    fold = run / "models" / "3d_fullres" / "fold_0"
    rows = list(csv.DictReader((fold / "log.csv").open()))
    each = [
        (float(after["seconds"]) - float(before["seconds"])) / (int(after["step"]) - int(before["step"]))
        for before, after in pairwise(rows)
        if not before["validation_dice"]
    ]
    settings = json.loads((fold / "settings.json").read_text())
    configuration = settings["configuration"]
    return {
        "seconds": statistics.median(each),
        "steps": len(each),
        "batch": configuration["batch_size"],
        "patch": configuration["patch_size"],
        "precision": settings["precision"] + (" channels-last" if settings["channels_last"] else ""),
    }


def compare_gradients(run: Path) -> dict[str, Any]:
    """The gradient of the first step in float32, as trained with, against that of the same step in float64: relative error of the whole.

    A leaky ReLU has two slopes, and rounding decides which where its input is all but 0: a change of the images by 1e-6 moves the gradient
    in float64 by 2.5e-4. So float64 takes the same slope as float32 everywhere; without that it is told beside.
    """
    plan = RunFolder(run).load_plan()
    configuration = next(one for one in plan.configurations if one.name == "3d_fullres")
    store = RunFolder(run).store(configuration.name)
    cases = tuple(sorted(path.stem for path in store.folder.glob("*.json")))
    result = {}
    for name, last in (("contiguous", False), ("channels-last", True)):
        compute = Compute("cpu", "fp32", last)
        batch = next(Loader(store, Sampler(cases, store.load, configuration, 0), compute).iterate(0, 1))
        slopes: list[torch.Tensor] = []
        single = compute_gradient(configuration, compute, batch, torch.float32, slopes, None)
        same = compute_gradient(configuration, compute, batch, torch.float64, [], iter(slopes))
        own = compute_gradient(configuration, compute, batch, torch.float64, [], None)
        result[name] = {"same_slopes": float((single - same).norm() / same.norm()), "own_slopes": float((single - own).norm() / own.norm())}
    return result


def compute_gradient(
    configuration: Configuration,
    compute: Compute,
    batch: Batch,
    kind: torch.dtype,
    slopes: list[torch.Tensor],
    given: Iterator[torch.Tensor] | None,
) -> torch.Tensor:
    """All gradients in one row. Where each activation was positive is appended to `slopes`, or taken from `given`."""
    network = start_state(configuration, 1, 3, 0, compute).network.to(kind).train()
    for module in network.modules():
        if isinstance(module, NormActivation):
            module.register_forward_hook(lambda _, inputs, output: slopes.append(output.detach() > 0))
            if given is not None:
                module.forward = functools.partial(activate, module, given)
    heads = network(batch.images.to(kind))
    compute_loss(heads, batch.labels, configuration.loss, configuration.batch_dice).backward()
    return torch.cat([value.grad.flatten().double() for value in network.parameters() if value.grad is not None])


def activate(module: NormActivation, given: Iterator[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Norm by the library, then the slope that is given for each voxel."""
    y = torch.nn.functional.instance_norm(x, weight=module.weight, bias=module.bias, eps=1e-5)
    return torch.where(next(given), y, y * module.slope)


def main() -> None:
    scans, reference, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 16
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(reference.parent, Path(folder) / "nnunet")
        peer.write_raw(scans)
        peer.write_trainer("nnUNetTrainerTimed", TRAINER.replace("STEPS", str(steps)))
        peer.prepare("3d_fullres")
        run = Path(folder) / "RUN"
        autoseg = str(Path(sys.executable).with_name("autoseg"))
        words = ["plan", str(peer.raw), "-o", str(run), "--profile", "nnunet", "--splits", str(write_splits(peer))]
        subprocess.run([autoseg, *words], check=True, stdout=subprocess.DEVNULL)
        before, ours, after = measure_reference(peer), measure_ours(run, 2 * steps), measure_reference(peer)
        gradients = compare_gradients(run)
    ratio = statistics.mean([before["seconds"], after["seconds"]]) / ours["seconds"]
    results = {"cores": os.cpu_count(), "nnunet": [before, after], "autoseg": ours, "speed_up": ratio, "gradients": gradients}
    save("training_steps", results)


if __name__ == "__main__":
    main()
