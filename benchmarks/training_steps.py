"""Training steps per second on a CPU: nnU-Net and autoseg with nnU-Net's own plan and batch, each by its own command and precision.

python benchmarks/training_steps.py ../shared/data/hippocampus PYTHON_OF_AN_ENVIRONMENT_WITH_NNUNETV2 [STEPS]

A step counts from the end of the last to its own end: waiting for data, augmentation in whatever process, loss and optimiser included.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import save
from peer import Peer

CASES = 60
ROUNDS = 2  # in turn, so that both meet the same machine
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


def measure_reference(peer: Peer) -> dict[str, Any]:
    """Median seconds of nnU-Net's steps after the first two."""
    peer.run("nnUNetv2_train", "1", "3d_fullres", "0", "-tr", "nnUNetTrainerTimed", "-device", "cpu")
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
    """Median seconds of our steps after the first rows of the log, which has a row every few steps."""
    autoseg = str(Path(sys.executable).with_name("autoseg"))
    words = ["train", str(run), "--fold", "0", "--configuration", "3d_fullres", "--steps", str(steps), "--overwrite"]
    subprocess.run([autoseg, *words], check=True)
    fold = run / "models" / "3d_fullres" / "fold_0"
    rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader((fold / "log.csv").open())]
    each = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(rows)][1:]
    settings = json.loads((fold / "settings.json").read_text())
    configuration = settings["configuration"]
    return {
        "seconds": statistics.median(each),
        "steps": len(each),
        "batch": configuration["batch_size"],
        "patch": configuration["patch_size"],
        "precision": settings["precision"] + (" channels-last" if settings["channels_last"] else ""),
    }


def main() -> None:
    scans, reference, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 12
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(reference.parent, Path(folder) / "nnunet")
        peer.write_raw(scans, CASES)
        peer.write_trainer("nnUNetTrainerTimed", TRAINER.replace("STEPS", str(steps)))
        peer.prepare("3d_fullres")
        run = Path(folder) / "RUN"
        autoseg = str(Path(sys.executable).with_name("autoseg"))
        words = ["plan", str(peer.raw), "-o", str(run), "--profile", "nnunet", "--splits", str(write_splits(peer))]
        subprocess.run([autoseg, *words], check=True, stdout=subprocess.DEVNULL)
        rounds = [{"nnunet": measure_reference(peer), "autoseg": measure_ours(run, steps)} for _ in range(ROUNDS)]
    ratio = statistics.median(row["nnunet"]["seconds"] / row["autoseg"]["seconds"] for row in rounds)
    save("training_steps", {"cores": os.cpu_count(), "rounds": rounds, "speed_up": ratio})


if __name__ == "__main__":
    main()
