"""What a Mask R-CNN learns from made-up cells in minutes: discs, touching spheres on 3:1 voxels, and one crowded image.

python benchmarks/made_objects.py [discs,spheres]

`discs`: 64 training images of 256² with 20 to 60 discs of radius 4 to 20, five minutes, 16 unseen images, and one of 512² with 500 discs.
`spheres`: 32 volumes of 64x128x128 voxels of 3x1x1 mm with touching balls, ten minutes, 8 unseen.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, describe, save

from autoseg.arrays.phantoms import Balls
from autoseg.commands.cells import make_cells

CROWD = Balls((520, 520), (4.0, 8.0))  # about 500 find a place
SPHERES = Balls((20, 40), (6.0, 14.0))


def run(*words: str | Path) -> None:
    """One autoseg command; its output is shown."""
    print("autoseg", *words, flush=True)
    subprocess.run([Path(sys.executable).with_name("autoseg"), *words], check=True)


def learn(folder: Path, training: int, unseen: int, minutes: float) -> Path:
    """Plans and trains on the first `training` of the cells in folder/cells; the others validate. Returns the fold's folder."""
    names = [f"cells_{number:03d}" for number in range(training + unseen)]
    splits = folder / "splits.json"
    splits.write_text(json.dumps([{"training": names[:training], "validation": names[training:]}]))
    asked = ("--task", "instance", "--minutes", f"{minutes:g}")
    run("plan", folder / "cells", "-o", folder / "RUN", "--splits", splits, *asked)
    run("train", folder / "RUN", "--fold", "0", "--minutes", f"{minutes:g}")
    return next((folder / "RUN").glob("models/*/fold_0"))


def describe_fold(fold: Path, minutes: float) -> dict[str, Any]:
    settings = json.loads((fold / "settings.json").read_text())
    scores = json.loads((fold / "validation" / "scores.json").read_text())
    return {"minutes": minutes, "steps": settings["steps"], "scores": scores["mean"], "machine": describe()}


def measure_discs(folder: Path) -> dict[str, Any]:
    make_cells(folder / "cells", range(80), (256, 256), (1.0, 1.0))
    row = describe_fold(learn(folder, 64, 16, 5), 5)
    make_cells(folder / "crowd", range(1), (512, 512), (1.0, 1.0), CROWD)
    run("predict", folder / "RUN", folder / "crowd" / "images", "-o", folder / "masks")
    run("evaluate", folder / "masks", folder / "crowd" / "labels")
    return {"what": "discs", **row, "crowd": json.loads((folder / "masks" / "scores.json").read_text())["mean"]}


def measure_spheres(folder: Path) -> dict[str, Any]:
    make_cells(folder / "cells", range(40), (64, 128, 128), (3.0, 1.0, 1.0), SPHERES)
    return {"what": "spheres", **describe_fold(learn(folder, 32, 8, 10), 10)}


MEASURES = {"discs": measure_discs, "spheres": measure_spheres}


def main() -> None:
    path = RESULTS / "made_objects.json"
    rows = {row["what"]: row for row in json.loads(path.read_text())["results"]} if path.is_file() else {}
    for name in (sys.argv[1] if len(sys.argv) > 1 else ",".join(MEASURES)).split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = MEASURES[name](Path(folder))
            save("made_objects", list(rows.values()))


if __name__ == "__main__":
    main()
