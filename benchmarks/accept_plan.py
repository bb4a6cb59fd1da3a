"""Whether nnU-Net prepares data by and trains with our plans: a few scans, two steps per configuration, validation, on a CPU.

python benchmarks/accept_plan.py ../shared/data/hippocampus PYTHON_OF_AN_ENVIRONMENT_WITH_NNUNETV2 [PROFILE …]
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import save

CASES = 6
NAME = "Dataset001_Scans"
PROFILES = ("nnunet", "nnunet-resenc")
CONFIGURATIONS = ("2d", "3d_fullres")
TRAINER = '''"""nnU-Net's trainer, stopped after two steps."""
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerTwoSteps(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
'''


def write_raw(scans: Path, folder: Path) -> None:
    """nnU-Net's folder of the first few scans."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for path in sorted((scans / "imagesTr").glob("*.nii.gz"))[:CASES]:
        shutil.copy(path, folder / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"))
        shutil.copy(scans / "labelsTr" / path.name, folder / "labelsTr" / path.name)
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset))


def run(command: list[str], environment: dict[str, str]) -> float:
    """Seconds that a command took. Raises where it fails, with the end of what it said."""
    begun = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}\n{(ended.stdout + ended.stderr)[-3000:]}")
    return round(time.monotonic() - begun, 1)


def accept(profile: str, scans: Path, tools: Path, root: Path) -> dict[str, Any]:
    """Our plan from nnU-Net's raw folder, put among its prepared data; then nnU-Net goes on alone."""
    raw, prepared = root / "raw" / NAME, root / "preprocessed" / NAME
    write_raw(scans, raw)
    (root / "trainers").mkdir()
    (root / "trainers" / "nnUNetTrainerTwoSteps.py").write_text(TRAINER)
    environment = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    environment |= {"nnUNet_extTrainer": str(root / "trainers"), "nnUNet_compile": "0", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    run([str(tools / "nnUNetv2_extract_fingerprint"), "-d", "1", "-np", "1"], environment)
    autoseg = [sys.executable, "-m", "autoseg", "plan", str(raw), "-o", str(root / "RUN"), "--format", "nnunet", "--profile", profile]
    run(autoseg, {})
    shutil.copy(root / "RUN" / "nnUNetPlans.json", prepared / "nnUNetPlans.json")
    shutil.copy(raw / "dataset.json", prepared / "dataset.json")
    result: dict[str, Any] = {}
    for name in CONFIGURATIONS:
        preprocess = [str(tools / "nnUNetv2_preprocess"), "-d", "1", "-c", name, "-np", "1"]
        train = [str(tools / "nnUNetv2_train"), "1", name, "0", "-tr", "nnUNetTrainerTwoSteps", "-device", "cpu"]
        seconds = {"preprocess_seconds": run(preprocess, environment), "train_seconds": run(train, environment)}
        result[name] = {**seconds, **read_outcome(root / "results" / NAME / f"nnUNetTrainerTwoSteps__nnUNetPlans__{name}" / "fold_0")}
    return result


def read_outcome(fold: Path) -> dict[str, Any]:
    """What training left behind: the losses in its log, and how many cases it predicted at the end."""
    log = "".join(path.read_text() for path in sorted(fold.glob("training_log_*.txt")))
    losses = [float(line.split("train_loss")[1]) for line in log.splitlines() if "train_loss" in line]
    validated = len(json.loads((fold / "validation" / "summary.json").read_text())["metric_per_case"])
    return {"train_loss": losses, "final_checkpoint": (fold / "checkpoint_final.pth").is_file(), "validated_cases": validated}


def main() -> None:
    scans, reference, *profiles = sys.argv[1:]
    results = {}
    for profile in profiles or PROFILES:
        with tempfile.TemporaryDirectory() as folder:
            results[profile] = accept(profile, Path(scans), Path(reference).parent, Path(folder))
    save("accept_plan", results)


if __name__ == "__main__":
    main()
