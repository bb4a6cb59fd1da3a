"""What fold 0 of the hippocampus scans reaches in so many minutes on this machine: autoseg by its own plan, nnU-Net by its own.

python benchmarks/training_minutes.py ../shared/data/hippocampus PYTHON_OF_AN_ENVIRONMENT_WITH_NNUNETV2 [--minutes 20,30] [--seeds 0,1]
    [--reference-minutes 20] [--cores-each N]

nnU-Net has no time limit: its number of steps is fitted to the minutes here (epochs of ten steps), so that its learning rate comes to its
end as ours does. Both train and validate the same cases. With --cores-each 1 the seeds train side by side on one core each: less
than each would have alone. A row that benchmarks/results/training_minutes.json has is not measured again.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine import RESULTS, describe, save
from peer import Peer

CONFIGURATION = "3d_fullres"
TRAINER = '''"""nnU-Net's trainer with STEPS steps, its schedule over all of them."""
import time
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class NAME(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = min(10, STEPS)
        self.num_epochs, self.num_val_iterations_per_epoch = STEPS // self.num_iterations_per_epoch, 1

    def on_train_start(self):
        super().on_train_start()
        self.began = time.monotonic()

    def on_train_end(self):
        with open(self.output_folder + "/seconds.txt", "w") as stream:
            stream.write(str(time.monotonic() - self.began))
        super().on_train_end()
'''


def run_ours(words: list[str], cores: str = "") -> None:
    pinned = ["taskset", "-c", cores] if cores else []
    subprocess.run([*pinned, str(Path(sys.executable).with_name("autoseg")), *words], check=True)


def measure_ours(scans: Path, minutes: float, seed: int, cores: str) -> dict[str, Any]:
    """One training of fold 0 by the plan for so many minutes, scored by the fold's own validation."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "RUN"
        run_ours(["plan", str(scans), "-o", str(run), "--minutes", f"{minutes:g}"], cores)
        run_ours(["train", str(run), "--fold", "0", "--minutes", f"{minutes:g}", "--seed", str(seed)], cores)
        fold = next(run.glob("models/*/fold_0"))
        scores = json.loads((fold / "validation" / "scores.json").read_text())
        settings = json.loads((fold / "settings.json").read_text())
        rows = list(csv.DictReader((fold / "log.csv").open()))
        return {
            "tool": "autoseg",
            "minutes": minutes,
            "seed": seed,
            "cores": len(cores.split(",")) if cores else os.cpu_count(),
            "mean_dice": scores["mean"]["dice"],
            "dice": {name: values["dice"]["mean"] for name, values in scores["classes"].items()},
            "steps": settings["steps"],
            "training_minutes": float(rows[-1]["seconds"]) / 60,
            "configuration": settings["configuration"]["name"],
            "patch": settings["configuration"]["patch_size"],
            "batch": settings["configuration"]["batch_size"],
            "machine": describe(),
        }


def measure_reference(scans: Path, tools: Path, minutes: float) -> dict[str, Any]:
    """nnU-Net's plan, a few steps to see how long they take, then as many as fit."""
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(tools, Path(folder) / "nnunet")
        peer.write_raw(scans)
        peer.prepare(CONFIGURATION)
        run = Path(folder) / "RUN"
        run_ours(["plan", str(scans), "-o", str(run)])
        folds = json.loads((run / "splits.json").read_text())["folds"]
        splits = [{"train": fold["training"], "val": fold["validation"]} for fold in folds]
        (peer.prepared / "splits_final.json").write_text(json.dumps(splits))
        first = train_reference(peer, 4, validate=False)
        steps = max(10, round(minutes * 60 / (first / 4) / 10) * 10)
        begun = time.monotonic()
        seconds = train_reference(peer, steps, validate=True)
        summary = json.loads((peer.fold(f"Steps{steps}", CONFIGURATION) / "validation" / "summary.json").read_text())
        plan = json.loads((peer.prepared / "nnUNetPlans.json").read_text())["configurations"][CONFIGURATION]
        return {
            "tool": "nnunet",
            "minutes": minutes,
            "seed": 0,
            "cores": os.cpu_count(),
            "mean_dice": summary["foreground_mean"]["Dice"],
            "dice": {name: values["Dice"] for name, values in summary["mean"].items()},
            "steps": steps,
            "training_minutes": seconds / 60,
            "whole_minutes": (time.monotonic() - begun) / 60,
            "configuration": CONFIGURATION,
            "patch": plan["patch_size"],
            "batch": plan["batch_size"],
            "machine": describe(),
        }


def train_reference(peer: Peer, steps: int, validate: bool) -> float:
    """Seconds of nnU-Net's training proper."""
    name = f"Steps{steps}"
    skip = "" if validate else "\n    def perform_actual_validation(self, save_probabilities: bool = False):\n        pass\n"
    peer.write_trainer(name, TRAINER.replace("NAME", name).replace("STEPS", str(steps)) + skip)
    peer.run("nnUNetv2_train", "1", CONFIGURATION, "0", "-tr", name, "-device", "cpu")
    return float((peer.fold(name, CONFIGURATION) / "seconds.txt").read_text())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scans", type=Path)
    parser.add_argument("reference", type=Path)
    for name, default in (("minutes", "20,30"), ("seeds", "0,1"), ("reference-minutes", "20")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--cores-each", type=int, default=0)
    asked = parser.parse_args()
    path = RESULTS / "training_minutes.json"
    rows = json.loads(path.read_text())["results"] if path.is_file() else []
    done = {(row["tool"], row["minutes"], row["seed"]) for row in rows}
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    for minutes in map(float, filter(None, asked.minutes.split(","))):
        waiting = [seed for seed in seeds if ("autoseg", minutes, seed) not in done]
        places = [",".join(str(place * asked.cores_each + core) for core in range(asked.cores_each)) for place in range(len(waiting))]
        with ThreadPoolExecutor(max(1, len(waiting)) if asked.cores_each else 1) as executor:
            for row in executor.map(lambda seed, cores, m=minutes: measure_ours(asked.scans, m, seed, cores), waiting, places):
                rows.append(row)
                save("training_minutes", rows)
    for minutes in map(float, filter(None, asked.reference_minutes.split(","))):
        if ("nnunet", minutes, 0) not in done:
            rows.append(measure_reference(asked.scans, asked.reference.parent, minutes))
            save("training_minutes", rows)


if __name__ == "__main__":
    main()
