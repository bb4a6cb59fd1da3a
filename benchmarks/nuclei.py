"""What each way to tell nuclei apart reaches in the same minutes on fold 0: our Mask R-CNN, our boundary network, what is chosen of both,

and StarDist.

python benchmarks/nuclei.py ../shared/data/nuclei PYTHON_OF_AN_ENVIRONMENT_WITH_STARDIST [--minutes 30] [--seed 0] [--only NAME,…]

All train on the images of fold 0 and are scored on its unseen ones by the same code (autoseg evaluate). StarDist, made for one kind of
image, trains on and is scored by the fluorescence images alone: grey on dark ground. `chosen` is what `autoseg select` makes of the
trainings that the run folder has by then, `chosen_tta` the same with `predict --tta`. A row that benchmarks/results/nuclei.json has is
not measured again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import SimpleITK as sitk
from machine import RESULTS, describe, save

from autoseg.io.objects import read_objects
from autoseg.io.run_folder import RunFolder
from autoseg.io.scans import read_components

OURS = ("instance_2d", "boundary_2d")
PRODUCTS: dict[str, tuple[str, ...]] = {"chosen": (), "chosen_tta": ("--tta",)}  # flags of predict
METRICS = ("ap_cell_50", "ap_cell_50_95", "f1_50", "pq", "aji", "count_error")
BATCH = 4  # of StarDist, its own
DARK = 0.5  # of the brightest value, below which the mean of a fluorescence image lies


def load_rows() -> list[dict[str, Any]]:
    """What was measured before."""
    path = RESULTS / "nuclei.json"
    return json.loads(path.read_text())["results"] if path.is_file() else []


def run(*words: str | Path) -> None:
    """One autoseg command; its output is shown."""
    print("autoseg", *words, flush=True)
    subprocess.run([Path(sys.executable).with_name("autoseg"), *words], check=True)


def is_fluorescence(path: Path) -> bool:
    """Grey on dark ground."""
    components = read_components(path)
    image = sitk.GetArrayViewFromImage(components[0])
    return len(components) == 1 and float(image.mean()) < DARK * float(image.max())


def average(scores: Path, cases: set[str]) -> dict[str, float]:
    """Means over some of the scored cases."""
    rows = [row for row in json.loads(scores.read_text())["cases"] if row["case"] in cases]
    return {metric: mean(row[metric] for row in rows if row[metric] is not None) for metric in METRICS} | {"images": len(rows)}


def summarise(scores: Path, kinds: dict[str, bool], unseen: tuple[str, ...]) -> dict[str, Any]:
    """The means over all unseen images, over those of fluorescence, and over the others; empty where nothing is scored."""
    groups = {"all": set(unseen), "fluorescence": {c for c in unseen if kinds[c]}, "other": {c for c in unseen if not kinds[c]}}
    scored = {row["case"] for row in json.loads(scores.read_text())["cases"]}
    return {name: average(scores, cases) for name, cases in groups.items() if cases and cases <= scored}


def measure_ours(name: str, folder: Path, minutes: float, seed: int) -> tuple[Path, dict[str, Any]]:
    run("train", folder, "--fold", "0", "--configuration", name, "--minutes", f"{minutes:g}", "--seed", str(seed))
    fold = RunFolder(folder).fold(name, 0)
    settings, status = (json.loads(path.read_text()) for path in (fold.settings, fold.status))
    facts = {"steps": settings["steps"], "cores": settings["threads"], "minutes_taken": status["seconds"] / 60}
    return fold.validation / "scores.json", {**facts, "batch": settings["configuration"]["batch_size"]}


def measure_product(scans: Path, folder: Path, flags: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    """What `select` makes of the trainings of fold 0, on the images that they have not seen; it is asked once for all products."""
    opened, output = RunFolder(folder), Path(tempfile.mkdtemp()) / "OUT"
    if not opened.choice.is_file():
        run("select", folder)
    run("predict", folder, scans, "-o", output, "--cases", "fold:0", *flags)
    run("evaluate", output, scans, "--only-predicted")
    names = json.loads(opened.choice.read_text())["configurations"]
    folds = [opened.fold(name, 0) for name in names]
    settings, status = ([json.loads(path.read_text()) for path in paths] for paths in zip(*((one.settings, one.status) for one in folds)))
    steps, taken = sum(own["steps"] for own in settings), sum(own["seconds"] for own in status) / 60
    facts = {"configurations": names, "steps": steps, "cores": settings[0]["threads"], "minutes_taken": taken}
    return output / "scores.json", {**facts, "batch": settings[0]["configuration"]["batch_size"]}


def write_grey(root: Path, images: dict[str, Path], labels: dict[str, np.ndarray]) -> None:
    """Images and labels as TIFF for a peer."""
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for case, path in images.items():
        sitk.WriteImage(read_components(path)[0], str(root / "images" / f"{case}.tif"))
        sitk.WriteImage(sitk.GetImageFromArray(labels[case].astype(np.uint16)), str(root / "labels" / f"{case}.tif"))


def measure_stardist(python: Path, run_folder: RunFolder, kinds: dict[str, bool], minutes: float, seed: int) -> tuple[Path, dict[str, Any]]:
    """Trains and predicts in the peer's environment; its label maps are scored by ours."""
    dataset, fold = run_folder.load_dataset(), run_folder.load_splits().folds[0]
    root = Path(tempfile.mkdtemp())
    for part, names in (("training", fold.training), ("unseen", fold.validation)):
        cases = [case for case in dataset.cases if case.id in set(names) and kinds[case.id]]
        files = {case.id: Path(dataset.root) / (case.label or "") for case in cases}
        labels = {case: read_objects(path, dataset.label_form, dataset.classes).ids for case, path in files.items()}
        write_grey(root / part, {case.id: Path(dataset.root) / case.images[0] for case in cases}, labels)
    subprocess.run([python, Path(__file__).with_name("reference_stardist.py"), root, f"{minutes:g}", str(seed)], check=True)
    run("evaluate", root / "predicted", root / "unseen" / "labels", "--task", "instance")
    found = json.loads((root / "stardist.json").read_text())
    facts = {"steps": found["steps"], "cores": len(os.sched_getaffinity(0)), "minutes_taken": found["training_minutes"]}
    return root / "predicted" / "scores.json", {**facts, "batch": BATCH}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scans", type=Path)
    parser.add_argument("stardist", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join((*OURS, *PRODUCTS, "stardist")))
    parser.add_argument("--run", type=Path, default=None, help="keep the run here")
    asked = parser.parse_args()
    done = {(row["what"], row["minutes"], row["seed"]) for row in load_rows()}
    folder = asked.run or Path(tempfile.mkdtemp()) / "RUN"
    if not (folder / "plan.json").is_file():
        run("plan", asked.scans, "-o", folder, "--minutes", f"{asked.minutes:g}")
    opened = RunFolder(folder)
    dataset, unseen = opened.load_dataset(), opened.load_splits().folds[0].validation
    kinds = {case.id: is_fluorescence(Path(dataset.root) / case.images[0]) for case in dataset.cases}
    for name in asked.only.split(","):
        if (name, asked.minutes, asked.seed) in done:
            continue
        if name == "stardist":
            scores, facts = measure_stardist(asked.stardist, opened, kinds, asked.minutes, asked.seed)
        elif name in PRODUCTS:
            scores, facts = measure_product(asked.scans, folder, PRODUCTS[name])
        else:
            scores, facts = measure_ours(name, folder, asked.minutes, asked.seed)
        row = {
            "what": name,
            "minutes": asked.minutes,
            "seed": asked.seed,
            **facts,
            **summarise(scores, kinds, unseen),
            "machine": describe(),
        }
        save("nuclei", [*load_rows(), row])  # read anew: two of them may be measured at once, each on a core


if __name__ == "__main__":
    main()
