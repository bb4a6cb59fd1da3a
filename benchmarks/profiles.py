"""Mean Dice of two planning profiles in the same minutes, in our engine: what the planner itself is worth.

python benchmarks/profiles.py ../shared/data [--minutes 15] [--seeds 0,1] [--data-sets hippocampus,fetal_head] [--profiles autoseg,nnunet]

With --side-by-side all trainings of a data set run at the same time, spread over the cores, each on one (Linux): the same minutes on the
same machine in the same moment, with equal shares of it, in a fraction of the time.

A row that benchmarks/results/profiles.json already has is measured again only with --anew: a row takes the
minutes, and they may be spread over several sittings. `autoseg` on a CPU is its form for CPUs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from machine import RESULTS, describe, save

GROUPS = {"fetal_head": ("--groups", r"^(\d+)_")}


@dataclass(frozen=True)
class Row:
    """One training; `cores` are those that it may use, all where none is named."""

    data: Path
    name: str
    profile: str
    minutes: str
    seed: str
    cores: str = ""

    @property
    def key(self) -> tuple[str, str, float, int]:
        return self.name, self.profile, float(self.minutes), int(self.seed)


def run(row: Row, *words: str) -> None:
    """One autoseg command on the row's cores."""
    print(f"{row.profile}: autoseg", *words, flush=True)
    pinned = ["taskset", "-c", row.cores] if row.cores else []
    subprocess.run([*pinned, Path(sys.executable).with_name("autoseg"), *words], check=True)


def measure(row: Row, folder: Path) -> dict[str, Any]:
    """Plans with the profile and trains fold 0; the fold's own validation is the score."""
    run_folder = folder / "RUN"
    begun = time.monotonic()
    asked = ("--profile", row.profile, "--minutes", row.minutes, *GROUPS.get(row.name, ()))
    run(row, "plan", str(row.data / row.name), "-o", str(run_folder), *asked)
    planned = time.monotonic() - begun
    run(row, "train", str(run_folder), "--fold", "0", "--minutes", row.minutes, "--seed", row.seed)
    fold = next(run_folder.glob("models/*/fold_0"))
    settings = json.loads((fold / "settings.json").read_text())
    scores = json.loads((fold / "validation" / "scores.json").read_text())
    last = (fold / "log.csv").read_text().splitlines()[-1].split(",")
    configuration = settings["configuration"]
    return {
        "data": row.name,
        "profile": row.profile,
        "minutes": float(row.minutes),
        "seed": int(row.seed),
        "cores": len(row.cores.split(",")) if row.cores else os.cpu_count(),
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
    parser.add_argument("--side-by-side", action="store_true")
    asked = parser.parse_args()
    path = RESULTS / "profiles.json"
    rows = [] if asked.anew or not path.is_file() else json.loads(path.read_text())["results"]
    for name in asked.data_sets.split(","):
        pairs = [(seed, profile) for seed in asked.seeds.split(",") for profile in asked.profiles.split(",")]
        wanted = [Row(asked.data, name, profile, asked.minutes, seed) for seed, profile in pairs]
        done = {(row["data"], row["profile"], row["minutes"], row["seed"]) for row in rows}
        wanted = [row for row in wanted if row.key not in done]
        if asked.side_by_side:
            wanted = [replace(row, cores=str(number % (os.cpu_count() or 1))) for number, row in enumerate(wanted)]
        with ThreadPoolExecutor(max(1, len(wanted)) if asked.side_by_side else 1) as executor:
            for measured in executor.map(measure_aside, wanted, [len(wanted)] * len(wanted)):
                rows.append(measured)
                save("profiles", rows)


def measure_aside(row: Row, count: int) -> dict[str, Any]:
    """Measures a row in a folder that is thrown away; `count` trainings run at the same time where rows have cores of their own."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(row, Path(folder)) | {"at_the_same_time": count if row.cores else 1}


if __name__ == "__main__":
    main()
