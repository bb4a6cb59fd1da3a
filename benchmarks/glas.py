"""Glands of the GlaS challenge (Warwick QU): both ways to tell them apart, scored on its two test parts, beside published figures.

python benchmarks/glas.py FOLDER_OF_WARWICK_QU [--minutes 60] [--only instance_2d,boundary_2d] [--run RUN]
python benchmarks/glas.py --made-up [--minutes 0.3]      (tiny images of the same names, to try it)

FOLDER holds train_1.bmp, train_1_anno.bmp (one id per gland), …, testA_1.bmp, testB_1.bmp. The test parts are in no training fold. The
report that the published figures come from defines neither IoU nor F1: ours are given by pixel (gland against ground, mean over images)
and by object (the challenge's own F1, Dice and Hausdorff distance in pixels, pooled over a part; and F1 at an IoU of .5, mean over images).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import save
from PIL import Image

from autoseg.arrays.phantoms import Balls, draw_balls
from autoseg.io.run_folder import RunFolder
from autoseg.io.scans import read_label

PUBLISHED = {"U-Net": {"IoU": 0.332, "F1": 0.643}, "Mask R-CNN": {"IoU": 0.419, "F1": 0.592}}
PARTS = ("train", "testA", "testB")
OURS = ("instance_2d", "boundary_2d")


def run(*words: str | Path) -> None:
    """One autoseg command; its output is shown."""
    print("autoseg", *words, flush=True)
    subprocess.run([Path(sys.executable).with_name("autoseg"), *words], check=True)


def make_up(folder: Path) -> Path:
    """Images of coloured discs, named as those of the challenge."""
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate(zip(PARTS, (10, 2, 2))):
        for number in range(1, count + 1):
            image, ids = draw_balls(np.random.default_rng((seed, number)), (96, 128), (1.0, 1.0), Balls())
            grey = np.clip(np.rint(image * 200 + 30), 0, 255).astype(np.uint8)
            Image.fromarray(np.stack([grey, 255 - grey, grey // 2], axis=-1)).save(folder / f"{part}_{number}.bmp")
            Image.fromarray(ids.astype(np.uint8)).save(folder / f"{part}_{number}_anno.bmp")
    return folder


def sort_parts(source: Path, target: Path) -> None:
    """A folder for each part: images linked, ids written as grey (files with a palette of colours would be read as colours)."""
    for path in sorted(source.glob("*.bmp")):
        found = re.fullmatch(r"(train|testA|testB)_\d+(_anno)?", path.stem)
        if not found:
            continue
        folder = target / (found[1] if found[1] == "train" else f"{found[1]}_references" if found[2] else found[1])
        folder.mkdir(parents=True, exist_ok=True)
        if found[2]:
            Image.fromarray(np.array(Image.open(path))).save(folder / path.name)
        else:
            (folder / path.name).symlink_to(path.resolve())


def score_pixels(masks: Path, references: Path) -> dict[str, float]:
    """IoU and F1 (Dice) of gland against ground, mean over images."""
    rows = []
    for reference in sorted(references.glob("*_anno.bmp")):
        (mask,) = masks.glob(f"{reference.stem.removesuffix('_anno')}.png")
        found, true = read_label(mask)[0] > 0, read_label(reference)[0] > 0
        both, either = np.sum(found & true), np.sum(found | true)
        rows.append((both / either, 2 * both / (both + either)))
    return dict(zip(("pixel_iou", "pixel_f1"), np.mean(rows, axis=0).tolist()))


def measure(name: str, root: Path, folder: Path, minutes: float) -> dict[str, Any]:
    """Trains fold 0 and scores both test parts."""
    if not RunFolder(folder).fold(name, 0).is_finished():
        run("train", folder, "--fold", "0", "--configuration", name, "--minutes", f"{minutes:g}")
    row: dict[str, Any] = {"what": name, "minutes": minutes}
    for part in PARTS[1:]:
        masks, references = folder / f"{part}_{name}", root / f"{part}_references"
        run("predict", folder, root / part, "-o", masks, "--configuration", name, "--folds", "0")
        run("evaluate", masks, references, "--task", "instance", "--metrics", "glas")
        scores = json.loads((masks / "scores.json").read_text())
        (pooled,) = scores["pooled"].values()
        own = {metric: pooled[metric] for metric in ("object_f1", "object_dice", "object_hausdorff")}
        row[part] = {**own, "f1_50": scores["mean"]["f1_50"], "matched_iou": scores["mean"]["sq"], **score_pixels(masks, references)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", default=",".join(OURS))
    parser.add_argument("--run", type=Path, help="keep the run here")
    asked = parser.parse_args()
    if (asked.images is None) != asked.made_up:
        parser.error("give the folder of the challenge's images, or --made-up")
    root = Path(tempfile.mkdtemp())
    sort_parts(make_up(root / "made_up") if asked.made_up else asked.images, root)
    folder = asked.run or root / "RUN"
    if not RunFolder(folder).plan.is_file():
        run("plan", root / "train", "-o", folder, "--task", "instance", "--classes", "gland", "--minutes", f"{asked.minutes:g}")
    rows = [measure(name, root, folder, asked.minutes) for name in asked.only.split(",")]
    if not asked.made_up:
        save("glas", {"published": PUBLISHED, "ours": rows})
    print(f"{'':<24}{'IoU':>8}{'F1':>8}   (published: by an undefined rule; ours: by pixel, then the challenge's object F1 and Dice)")
    for name, figures in PUBLISHED.items():
        print(f"{name + ', published':<24}{figures['IoU']:>8.3f}{figures['F1']:>8.3f}")
    for row in rows:
        for part in PARTS[1:]:
            own = row[part]
            objects = "".join(f"{own[metric] or 0:>8.3f}" for metric in ("object_f1", "object_dice"))
            print(f"{row['what'] + ', ' + part:<24}{own['pixel_iou']:>8.3f}{own['pixel_f1']:>8.3f}{objects}")


if __name__ == "__main__":
    main()
