"""Dice against minutes on fold 0 of the hippocampus scans: exactly the four commands a user types, for each number of minutes.

python benchmarks/hippocampus.py ../shared/data/hippocampus [MINUTES …]     (default 2 6 15)
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import save


def run(*words: str) -> None:
    """One autoseg command; its output is shown."""
    print("autoseg", *words, flush=True)
    subprocess.run([Path(sys.executable).with_name("autoseg"), *words], check=True)


def measure(data: str, minutes: str, folder: Path) -> dict[str, object]:
    """Plans, trains, predicts and evaluates; the fold's own validation must say the same."""
    run_folder, masks = str(folder / "RUN"), str(folder / "P")
    begun = time.monotonic()
    run("plan", data, "-o", run_folder)
    run("train", run_folder, "--fold", "0", "--minutes", minutes)
    run("predict", run_folder, f"{data}/imagesTr", "-o", masks, "--cases", "fold:0")
    run("evaluate", masks, f"{data}/labelsTr", "--only-predicted")
    whole = time.monotonic() - begun
    fold = next(Path(run_folder).glob("models/*/fold_0"))
    scores = json.loads((Path(masks) / "scores.json").read_text())
    own = json.loads((fold / "validation" / "scores.json").read_text())
    settings = json.loads((fold / "settings.json").read_text())
    last = (fold / "log.csv").read_text().splitlines()[-1].split(",")
    return {
        "minutes": float(minutes),
        "mean_dice": scores["mean"]["dice"],
        "dice": {name: values["dice"] for name, values in scores["classes"].items()},
        "equal_to_fold_scores": scores["cases"] == own["cases"],
        "steps": settings["steps"],
        "precision": settings["precision"],
        "channels_last": settings["channels_last"],
        "seconds_per_step_measured_before": settings["seconds_per_step"],
        "training_seconds": float(last[2]),
        "seconds_all_four_commands": whole,
    }


def main() -> None:
    data, *minutes = sys.argv[1:]
    results = []
    for value in minutes or ["2", "6", "15"]:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(data, value, Path(folder)))
            save("hippocampus", results)


if __name__ == "__main__":
    main()
