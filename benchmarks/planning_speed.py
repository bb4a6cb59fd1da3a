"""How long planning takes: 500 made-up cases from a fingerprint, and the hippocampus scans against nnU-Net's fingerprint and plan.

python benchmarks/planning_speed.py ../shared/data/hippocampus PYTHON_OF_AN_ENVIRONMENT_WITH_NNUNETV2
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import save

REPEATS = 3


def measure_seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Wall clock of a command, start-up included."""
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    return time.monotonic() - begun


def write_fingerprint(folder: Path, cases: int) -> None:
    """A folder as nnU-Net leaves it behind: dataset.json and dataset_fingerprint.json of `cases` CT scans of different sizes."""
    draw = random.Random(0)
    spacings = [[draw.choice((1.0, 1.25, 2.5, 5.0)), *[draw.uniform(0.6, 0.98)] * 2] for _ in range(cases)]
    shapes = [[draw.randint(60, 500), draw.randint(300, 512), draw.randint(300, 512)] for _ in range(cases)]
    values = {"mean": 90.0, "median": 95.0, "std": 45.0, "min": -1000.0, "max": 1500.0, "percentile_00_5": -20.0, "percentile_99_5": 200.0}
    fingerprint = {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {"0": values},
        "median_relative_size_after_cropping": 1.0,
    }
    labels = {"background": 0, "liver": 1, "tumour": 2}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    (folder / "dataset.json").write_text(json.dumps(dataset))


def measure_fingerprint(folder: Path) -> dict[str, float]:
    """Seconds of `autoseg plan` on a fingerprint of 500 cases, by profile."""
    write_fingerprint(folder, 500)
    autoseg = str(Path(sys.executable).with_name("autoseg"))
    seconds = {}
    for profile, more in (("nnunet", []), ("nnunet-resenc-xl", []), ("autoseg", ["--memory", "8GB"]), ("autoseg-cpu", [])):
        command = [autoseg, "plan", str(folder), "-o", str(folder / "RUN"), "--profile", profile, *more]
        seconds[profile] = statistics.median(measure_seconds(command) for _ in range(REPEATS))
    return seconds


def measure_scans(scans: Path, reference: Path, folder: Path) -> dict[str, float]:
    """Both on the same scans in turn; nnU-Net needs its folders and file names first, which is not counted."""
    raw = folder / "raw" / "Dataset001_Scans"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for path in sorted((scans / "imagesTr").glob("*.nii.gz")):
        shutil.copy(path, raw / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"))
        shutil.copy(scans / "labelsTr" / path.name, raw / "labelsTr" / path.name)
    count = len(list((raw / "imagesTr").iterdir()))
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": count, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(dataset))
    environment = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    autoseg = str(Path(sys.executable).with_name("autoseg"))
    ours, theirs = [], []
    for number in range(REPEATS):
        ours.append(measure_seconds([autoseg, "plan", str(scans), "-o", str(folder / f"RUN{number}")]))
        shutil.rmtree(folder / "preprocessed", ignore_errors=True)
        command = [str(reference.with_name("nnUNetv2_plan_and_preprocess")), "-d", "1", "--no_pp", "-npfp", str(os.cpu_count())]
        theirs.append(measure_seconds(command, environment))
    return {"cases": count, "autoseg": statistics.median(ours), "nnunet": statistics.median(theirs)}


def main() -> None:
    scans, reference = map(Path, sys.argv[1:])
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        results["fingerprint_of_500_cases_seconds"] = measure_fingerprint(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        results["scans_seconds"] = measure_scans(scans, reference, Path(folder))
    save("planning_speed", results)


if __name__ == "__main__":
    main()
