"""All that needs a GPU, in one go: steps per second against nnU-Net, how busy two CPU threads keep the GPU, minutes to a Dice, memory.

python benchmarks/gpu.py ../shared/data/hippocampus PYTHON_OF_AN_ENVIRONMENT_WITH_NNUNETV2

Writes benchmarks/results/gpu.json after every part; a part that fails leaves its error there and the next begins.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pynvml
import SimpleITK as sitk
from machine import save
from peer import Peer
from training_steps import TRAINER, measure_reference, write_splits

STEPS = 250
CT_SHAPE = (160, 256, 256)
CT_CASES = 12
MINUTES = (2, 5, 10)
WANTED_DICE = 0.888


def run_ours(*words: str, cores: str = "") -> None:
    pinned = ["taskset", "-c", cores] if cores else []
    subprocess.run([*pinned, str(Path(sys.executable).with_name("autoseg")), *words], check=True)


def write_ct(folder: Path) -> Path:
    """Made-up scans for which nnU-Net plans a patch of 128³ at batch 2: soft noise with balls in it."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    z, y, x = np.meshgrid(*[np.arange(edge) for edge in CT_SHAPE], indexing="ij")
    for case in range(CT_CASES):
        generator = np.random.default_rng(case)
        label = np.zeros(CT_SHAPE, np.uint8)
        for number in (1, 2):
            middle = generator.uniform(40, 120, 3)
            label[(z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < (15 * number) ** 2] = number
        image = (generator.normal(0, 40, CT_SHAPE) + 100 * label).astype(np.int16)
        for name, array in (("imagesTr", image), ("labelsTr", label)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name / f"ct_{case:03d}.nii.gz"))
    return folder


def compare_steps(scans: Path, tools: Path) -> dict[str, Any]:
    """Seconds per step of both, with nnU-Net's plan and batch."""
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(tools, Path(folder) / "nnunet", workers=8)
        peer.write_raw(scans)
        peer.write_trainer("nnUNetTrainerTimed", TRAINER.replace("STEPS", str(STEPS)))
        peer.prepare("3d_fullres")
        run = Path(folder) / "RUN"
        run_ours("plan", str(peer.raw), "-o", str(run), "--profile", "nnunet", "--splits", str(write_splits(peer)), "--device", "cuda")
        theirs = measure_reference(peer, "cuda")
        run_ours("train", str(run), "--fold", "0", "--configuration", "3d_fullres", "--steps", str(STEPS), "--device", "cuda")
        return {"nnunet": theirs, "autoseg": read_steps(run)}


def read_steps(run: Path) -> dict[str, Any]:
    fold = next(run.glob("models/*/fold_0"))
    rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader((fold / "log.csv").open())]
    each = sorted((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(rows))
    settings = json.loads((fold / "settings.json").read_text())
    return {"seconds": each[len(each) // 2], "fastest": each[0], "precision": settings["precision"], "settings": settings}


def measure_busy_share(scans: Path) -> dict[str, Any]:
    """Share of the time in which the GPU computes, sampled ten times a second from the first log row on; two CPU threads in all."""
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "RUN"
        run_ours("plan", str(scans), "-o", str(run), "--device", "cuda", "--minutes", "2")
        run_ours("prepare", str(run))
        autoseg = str(Path(sys.executable).with_name("autoseg"))
        words = ["taskset", "-c", "0,1", autoseg, "train", str(run), "--fold", "0", "--minutes", "1", "--device", "cuda"]
        process = subprocess.Popen(words)
        shares = []
        while process.poll() is None:
            time.sleep(0.1)
            status = list(run.glob("models/*/fold_0/status.json"))
            if status and json.loads(status[0].read_text())["state"] == "training" and list(run.glob("models/*/fold_0/log.csv")):
                shares.append(pynvml.nvmlDeviceGetUtilizationRates(card).gpu)
        return {"mean_percent": float(np.mean(shares)), "samples": len(shares)}


def measure_minutes(scans: Path) -> list[dict[str, Any]]:
    """Mean Dice of fold 0 after so many minutes, and the whole time that the command took; ends where WANTED_DICE is reached."""
    rows = []
    for minutes in MINUTES:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "RUN"
            begun = time.monotonic()
            run_ours("plan", str(scans), "-o", str(run), "--device", "cuda", "--minutes", str(minutes))
            run_ours("train", str(run), "--fold", "0", "--minutes", str(minutes), "--device", "cuda")
            scores = json.loads(next(run.glob("models/*/fold_0/validation/scores.json")).read_text())
            rows.append({"minutes": minutes, "whole_minutes": (time.monotonic() - begun) / 60, "mean_dice": scores["mean"]["dice"]})
        if rows[-1]["mean_dice"] >= WANTED_DICE:
            break
    return rows


def measure_memory() -> str:
    """The table of planned and measured bytes; it is a script of its own."""
    subprocess.run([sys.executable, str(Path(__file__).with_name("memory_table.py"))], check=True)
    return "benchmarks/results/memory.json"


def main() -> None:
    scans, tools = Path(sys.argv[1]), Path(sys.argv[2]).parent
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        ct = write_ct(Path(folder))
        parts: dict[str, Callable[[], Any]] = {
            "steps_hippocampus": lambda: compare_steps(scans, tools),
            "steps_128": lambda: compare_steps(ct, tools),
            "busy": lambda: measure_busy_share(scans),
            "minutes": lambda: measure_minutes(scans),
            "memory": measure_memory,
        }
        for name, part in parts.items():
            try:
                results[name] = part()
            except Exception:
                results[name] = {"failed": traceback.format_exc()[-2000:]}
            save("gpu", results)


if __name__ == "__main__":
    main()
