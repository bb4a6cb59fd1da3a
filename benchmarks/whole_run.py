"""From a folder of scans to a choice with its scores in one command, killed (SIGKILL) on the way and typed again.

The mean Dice over all cases is computed a second time from masks and labels alone, with nothing of autoseg's: 2 TP / (P + R) by numpy, the
post-processing of choice.json by scipy. Both must be equal to 1e-6.

python benchmarks/whole_run.py ../shared/data/hippocampus [--hours 0.75] [--kills 2] [--run FOLDER]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from machine import save
from scipy import ndimage

RESAMPLES = 5000


def start(words: list[str]) -> subprocess.Popen[bytes]:
    print("autoseg", *words, flush=True)
    return subprocess.Popen([str(Path(sys.executable).with_name("autoseg")), *words], start_new_session=True)


def run_killed(words: list[str], hours: float, kills: int) -> list[float]:
    """The command, killed after equal shares of the time, each time typed again; returns the minutes after which each process ended."""
    begun, ends = time.monotonic(), []
    for number in range(1, kills + 1):
        process = start(words)
        try:
            process.wait(max(1.0, begun + number / (kills + 1) * hours * 3600 - time.monotonic()))
            raise SystemExit(f"the run ended with {process.returncode} before it was killed")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        ends.append(round((time.monotonic() - begun) / 60, 1))
        print(f"killed after {ends[-1]} minutes", flush=True)
    process = start(words)
    if process.wait():
        raise SystemExit(f"the run ended with {process.returncode}")
    return [*ends, round((time.monotonic() - begun) / 60, 1)]


def read(path: Path) -> np.ndarray:
    return np.rint(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).astype(np.int64)


def apply_rule(mask: np.ndarray, rule: dict[str, Any], values: dict[str, int], voxel: float) -> np.ndarray:
    """One rule of choice.json on the values of a mask; components touch by faces, edges or corners; `voxel` in mm³."""
    wanted = mask == values[rule["class_name"]] if rule["class_name"] else mask > 0
    if rule["kind"] == "fill_holes":
        holes = ndimage.binary_fill_holes(wanted) & (mask == 0)
        return np.where(holes, values[rule["class_name"]], mask)
    parts, _ = ndimage.label(wanted, np.ones((3,) * mask.ndim))
    sizes = np.bincount(parts.ravel())[1:]
    least = sizes.max(initial=0) if rule["kind"] == "largest_component" else rule["volume"] / voxel
    kept = np.isin(parts, 1 + np.flatnonzero(sizes >= least))
    return np.where(wanted & ~kept, 0, mask)


def find_masks(run: Path, choice: dict[str, Any]) -> dict[str, Path]:
    """Case → mask by models that have not seen it: of the folds' validations, or of the ensemble that was chosen."""
    names = choice["configurations"]
    folders = [run / "models" / names[0] / f"fold_{fold}" / "validation" for fold in choice["folds"]]
    if len(names) > 1:
        folders = [run / "selection" / "+".join(names)]
    return {path.name.removesuffix(".nii.gz"): path for folder in folders for path in folder.glob("*.nii.gz")}


def count_dice(run: Path) -> dict[str, list[float | None]]:
    """Case → Dice of each class, from the files alone."""
    dataset, choice = (json.loads((run / name).read_text()) for name in ("dataset.json", "choice.json"))
    values = {label["name"]: label["values"][0] for label in dataset["classes"]}
    labels = {case["id"]: Path(dataset["root"]) / case["label"] for case in dataset["cases"]}
    rows: dict[str, list[float | None]] = {}
    for case, path in sorted(find_masks(run, choice).items()):
        mask, label = read(path), read(labels[case])
        voxel = float(np.prod(sitk.ReadImage(str(labels[case])).GetSpacing()))
        for rule in choice["rules"]:
            mask = apply_rule(mask, rule, values, voxel)
        rows[case] = []
        for value in values.values():
            both, total = np.sum((mask == value) & (label == value)), np.sum(mask == value) + np.sum(label == value)
            rows[case].append(float(2 * both / total) if total else None)
    return rows


def average(rows: list[list[float | None]]) -> float:
    """The mean over classes of the means over cases where the class has a Dice."""
    return float(np.mean([np.mean([value for value in column if value is not None]) for column in zip(*rows)]))


def judge(run: Path) -> dict[str, Any]:
    """What the run has left, beside what the files say."""
    scores, splits, agenda, choice = (json.loads((run / f"{n}.json").read_text()) for n in ("scores", "splits", "agenda", "choice"))
    rows = count_dice(run)
    names = list(rows)
    draws = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    table = np.array([[np.nan if value is None else value for value in rows[name]] for name in names])
    means = np.nanmean(np.nanmean(table, axis=1)[draws], axis=1)
    return {
        "cases": len(names),
        "mean_dice": scores["mean"]["dice"],
        "mean_dice_from_files": average(list(rows.values())),
        "interval": [float(value) for value in np.quantile(means, (0.025, 0.975))],
        "dice": {name: values["dice"] for name, values in scores["classes"].items()},
        "folds": [average([rows[case] for case in splits["folds"][number]["validation"]]) for number in choice["folds"]],
        "minutes_per_training": agenda["minutes"],
        "trainings": len(agenda["trainings"]),
        "left_out": agenda["left_out"],
        "chosen": {name: choice[name] for name in ("configurations", "folds", "rules", "notes")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--hours", type=float, default=0.75)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--run", type=Path, help="keep the run here (default: a temporary folder)")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = wanted.run or Path(folder) / "RUN"
        ends = run_killed(["run", wanted.data, "-o", str(run), "--hours", f"{wanted.hours:g}"], wanted.hours, wanted.kills)
        results = {"hours": wanted.hours, "killed_after_minutes": ends[:-1], "minutes_in_all": ends[-1], **judge(run)}
    save("whole_run", results)
    difference = abs(results["mean_dice"] - results["mean_dice_from_files"])
    low, high = results["interval"]
    print(
        f"mean Dice over {results['cases']} cases {results['mean_dice']:.4f} (95 % {low:.4f} … {high:.4f}); files say {difference:.1e} else"
    )
    print("per fold: " + ", ".join(f"{value:.4f}" for value in results["folds"]))
    if difference > 1e-6:
        raise SystemExit("the scores are not those of the files")


if __name__ == "__main__":
    main()
