"""Two more kinds of real scans, planned with no flag that is not needed: ultrasound images (2D, patient groups) and MR with thick slices.

python benchmarks/real_scans.py ../shared/data [fetal_head sarcoma]
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import SimpleITK as sitk
from hippocampus import run
from machine import save

GROUPS = r"^(\d+)_"


def measure_fetal_head(data: Path, folder: Path) -> dict[str, object]:
    """Ten minutes; the Dice of the fold, and whether any fetus is in two folds."""
    run_folder = str(folder / "RUN")
    run("plan", str(data / "fetal_head"), "-o", run_folder, "--groups", GROUPS)
    run("train", run_folder, "--fold", "0", "--minutes", "10")
    folds = json.loads((folder / "RUN" / "splits.json").read_text())["folds"]
    seen = [{re.match(GROUPS, case)[1] for case in fold["validation"]} for fold in folds]
    torn = sum(len(a & b) for i, a in enumerate(seen) for b in seen[:i])
    fold = folder / "RUN" / "models" / "2d" / "fold_0"
    return _collect(fold) | {"fetuses_in_two_folds": torn}


def measure_sarcoma(data: Path, folder: Path) -> dict[str, object]:
    """Two minutes of MR by two patterns; whether every mask lies on its own scan's grid."""
    run_folder, masks = str(folder / "RUN"), folder / "P"
    patterns = ("--channels", "mr={case}/MR_T1_image.nii.gz", "--labels", "{case}/MR_T1_mask.nii.gz")
    run("plan", str(data / "sarcoma"), "-o", run_folder, *patterns)
    run("train", run_folder, "--fold", "0", "--minutes", "2")
    run("predict", run_folder, str(data / "sarcoma"), "-o", str(masks))
    found = sorted(masks.glob("STS_*.nii.gz"))
    same = [_same_grid(mask, data / "sarcoma" / mask.name.split(".")[0] / "MR_T1_image.nii.gz") for mask in found]
    return _collect(folder / "RUN" / "models" / "3d_fullres" / "fold_0") | {"masks": len(found), "on_own_grid": sum(same)}


def _same_grid(mask: Path, scan: Path) -> bool:
    a, b = sitk.ReadImage(str(mask)), sitk.ReadImage(str(scan))
    return all(getattr(a, name)() == getattr(b, name)() for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"))


def _collect(fold: Path) -> dict[str, object]:
    settings = json.loads((fold / "settings.json").read_text())
    scores = json.loads((fold / "validation" / "scores.json").read_text())
    last = (fold / "log.csv").read_text().splitlines()[-1].split(",")
    return {"mean_dice": scores["mean"]["dice"], "steps": settings["steps"], "training_seconds": float(last[2])}


MEASURES = {"fetal_head": measure_fetal_head, "sarcoma": measure_sarcoma}


def main() -> None:
    data, *names = sys.argv[1:]
    for name in names or list(MEASURES):
        with tempfile.TemporaryDirectory() as folder:
            save(name, MEASURES[name](Path(data), Path(folder)))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
