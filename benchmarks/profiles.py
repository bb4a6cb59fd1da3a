"""Mean Dice of two planning profiles in the same minutes, in our engine: what the planner itself is worth.

python benchmarks/profiles.py ../shared/data [--minutes 15] [--seeds 0,1] [--data-sets hippocampus,fetal_head] [--profiles autoseg,nnunet]

A row that benchmarks/results/profiles.json already has is measured again only with --anew: a row takes the
minutes, and they may be spread over several sittings. `autoseg` on a CPU is its form for CPUs.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from hippocampus import run
from machine import RESULTS, describe, save

GROUPS = {"fetal_head": ("--groups", r"^(\d+)_")}


def measure(data: Path, name: str, profile: str, minutes: str, seed: str, folder: Path) -> dict[str, Any]:
    """Plans with the profile and trains fold 0; the fold's own validation is the score."""
    run_folder = folder / "RUN"
    begun = time.monotonic()
    run("plan", str(data / name), "-o", str(run_folder), "--profile", profile, "--minutes", minutes, *GROUPS.get(name, ()))
    planned = time.monotonic() - begun
    run("train", str(run_folder), "--fold", "0", "--minutes", minutes, "--seed", seed)
    fold = next(run_folder.glob("models/*/fold_0"))
    settings = json.loads((fold / "settings.json").read_text())
    scores = json.loads((fold / "validation" / "scores.json").read_text())
    last = (fold / "log.csv").read_text().splitlines()[-1].split(",")
    configuration = settings["configuration"]
    return {
        "data": name,
        "profile": profile,
        "minutes": float(minutes),
        "seed": int(seed),
        "mean_dice": scores["mean"]["dice"],
        "dice": {label: values["dice"] for label, values in scores["classes"].items()},
        "configuration": configuration["name"],
        "spacing": configuration["spacing"],
        "patch_size": configuration["patch_size"],
        "batch_size": configuration["batch_size"],
        "steps": settings["steps"],
        "training_seconds": float(last[2]),
        "planning_seconds": planned,
        "machine": describe(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", default="15")
    for name, default in (("seeds", "0,1"), ("data-sets", "hippocampus,fetal_head"), ("profiles", "autoseg,nnunet")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--anew", action="store_true")
    asked = parser.parse_args()
    path = RESULTS / "profiles.json"
    rows = [] if asked.anew or not path.is_file() else json.loads(path.read_text())["results"]
    for name in asked.data_sets.split(","):
        for seed in asked.seeds.split(","):
            for profile in asked.profiles.split(","):
                key = (name, profile, float(asked.minutes), int(seed))
                if any((row["data"], row["profile"], row["minutes"], row["seed"]) == key for row in rows):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(asked.data, name, profile, asked.minutes, seed, Path(folder)))
                save("profiles", rows)


if __name__ == "__main__":
    main()
