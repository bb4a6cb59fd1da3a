"""A 2D U-Net on BraTS 2020: one fold trained slice by slice, its unseen cases scored beside a published 2D U-Net.

python benchmarks/brats_2d.py FOLDER_OF_CASES [--minutes 60] [--run RUN]
python benchmarks/brats_2d.py --made-up [--minutes 0.3]      (tiny scans of the same names, to try it)

FOLDER holds BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii(.gz), labels 0, 1, 2, 4. The published figures come
without definitions: ours are Dice and IoU over the voxels of all unseen cases taken together, mean over the four classes with and without
the background; the mean over cases of the three tumour classes' Dice as `evaluate` gives it; and the share of voxels that are right.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from machine import save

from autoseg.arrays.labels import encode_labels
from autoseg.evaluation.overlap import count_joint
from autoseg.io.run_folder import RunFolder
from autoseg.io.scans import read_label

PUBLISHED = {"dice": 0.6615, "mean_iou": 0.82, "accuracy": 0.9942}
CLASSES = "necrosis=1,edema=2,enhancing=4"
CHANNELS = ("flair", "t1", "t1ce", "t2")
NAME = "2d"


def run(*words: str | Path) -> None:
    """One autoseg command; its output is shown."""
    print("autoseg", *words, flush=True)
    subprocess.run([Path(sys.executable).with_name("autoseg"), *words], check=True)


def make_up(folder: Path, cases: int = 6) -> Path:
    """Nested blocks in noise, named as the challenge's cases."""
    for number in range(1, cases + 1):
        generator = np.random.default_rng(number)
        label = np.zeros((16, 40, 40), np.uint8)
        for value, inset in ((2, 0), (4, 3), (1, 5)):
            y, x = 6 + number, 16 - number
            label[2 + inset // 3 : 14 - inset // 3, y + inset : y + 18 - inset, x + inset : x + 18 - inset] = value
        case = f"BraTS20_Training_{number:03d}"
        (folder / case).mkdir(parents=True)
        for place, channel in enumerate(CHANNELS):
            bright = np.array([100, 160 + 20 * place, 220 - 20 * place, 0, 300])[label] + generator.normal(0, 15, label.shape)
            sitk.WriteImage(sitk.GetImageFromArray(bright.astype(np.int16)), str(folder / case / f"{case}_{channel}.nii.gz"))
        sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / case / f"{case}_seg.nii.gz"))
    return folder


def score(folder: Path) -> dict[str, float]:
    """The figures of fold 0 from the masks of its own final validation."""
    opened = RunFolder(folder)
    dataset, validation = opened.load_dataset(), opened.fold(NAME, 0).validation
    labels = {case.id: Path(dataset.root) / (case.label or "") for case in dataset.cases}
    manifest = json.loads((validation / "predictions.json").read_text())
    joint = np.zeros((4, 4), np.int64)
    for entry in manifest["cases"]:
        maps = [read_label(path)[0] for path in (validation / entry["mask"], labels[entry["case"]])]
        joint += count_joint(*(encode_labels(values, dataset.classes, 0, None) for values in maps), 3)
    hits, sums = np.diag(joint), joint.sum(0) + joint.sum(1)
    dice, iou = 2 * hits / sums, hits / (sums - hits)
    scores = json.loads((validation / "scores.json").read_text())
    return {
        "dice_with_background": float(dice.mean()),
        "dice_without_background": float(dice[1:].mean()),
        "dice_mean_over_cases": scores["mean"]["dice"],
        "mean_iou_with_background": float(iou.mean()),
        "mean_iou_without_background": float(iou[1:].mean()),
        "accuracy": float(hits.sum() / joint.sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scans", type=Path, nargs="?")
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--run", type=Path, help="keep the run here")
    asked = parser.parse_args()
    if (asked.scans is None) != asked.made_up:
        parser.error("give the folder of the challenge's cases, or --made-up")
    root = Path(tempfile.mkdtemp())
    scans, folder = make_up(root / "made_up") if asked.made_up else asked.scans, asked.run or root / "RUN"
    if not RunFolder(folder).plan.is_file():
        run("plan", scans, "-o", folder, "--classes", CLASSES, "--minutes", f"{asked.minutes:g}")
    if not RunFolder(folder).fold(NAME, 0).is_finished():
        run("train", folder, "--fold", "0", "--configuration", NAME, "--minutes", f"{asked.minutes:g}")
    ours = score(folder)
    if not asked.made_up:
        save("brats_2d", {"minutes": asked.minutes, "published": PUBLISHED, "ours": ours})
    print("published 2D U-Net, by an undefined rule: " + ", ".join(f"{name} {value:g}" for name, value in PUBLISHED.items()))
    for name, value in ours.items():
        print(f"ours, fold 0, {name:<30}{value:.4f}")


if __name__ == "__main__":
    main()
