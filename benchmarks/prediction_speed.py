"""Seconds in which `autoseg.load(model).predict` finds the objects of a 512² image: about 100 of them, and more than 400.

python benchmarks/prediction_speed.py [RUN]

RUN is a run of grey images with a trained instance configuration. Without one a model learns from made-up cells first, for three
minutes, with the patch that is planned where no minutes are given: that of a few minutes would be small, and the tiles many.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from machine import save
from made_objects import CROWD, run

from autoseg import load
from autoseg.arrays.phantoms import Balls
from autoseg.commands.cells import make_cells
from autoseg.inference.predictor import Predictor

SHAPE, SPACING = (512, 512), (1.0, 1.0)
IMAGES = {"hundred": Balls((100, 100), (4.0, 20.0)), "crowd": CROWD}
CASES, CASE_SHAPE, MINUTES = 30, (256, 256), 3.0
REPEATS = 5
AIM = 1.5  # seconds for a hundred objects on two cores


def learn_cells(folder: Path) -> Path:
    """A run with a fold trained on cells such as those that are timed."""
    make_cells(folder / "cells", range(CASES), CASE_SHAPE, SPACING)
    run("plan", folder / "cells", "-o", folder / "RUN", "--task", "instance")
    run("train", folder / "RUN", "--fold", "0", "--minutes", f"{MINUTES:g}")
    return folder / "RUN"


def time_image(model: Predictor, folder: Path, balls: Balls) -> dict[str, Any]:
    """Reading the image, predicting and the map of numbers on its grid; the first time warms up."""
    make_cells(folder, range(1), SHAPE, SPACING, balls)
    image, label = (folder / part / "cells_000.png" for part in ("images", "labels"))
    seconds = []
    for _ in range(1 + REPEATS):
        begun = time.perf_counter()
        found = model.predict(image)
        seconds.append(time.perf_counter() - begun)
    true, predicted = (
        int(np.count_nonzero(np.bincount(sitk.GetArrayFromImage(one).ravel())[1:])) for one in (sitk.ReadImage(label), found)
    )
    return {"objects": true, "found": predicted, "median_s": statistics.median(seconds[1:]), "slowest_s": max(seconds[1:])}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = load(sys.argv[1] if len(sys.argv) > 1 else learn_cells(folder), device="cpu")
        configuration = model.header.configuration
        facts = {"configuration": configuration.name, "patch": configuration.patch_size, "steps": model.header.steps, "aim_s": AIM}
        images = {name: time_image(model, folder / name, balls) for name, balls in IMAGES.items()}
        save("prediction_speed", {"threads": torch.get_num_threads(), **facts, **images})


if __name__ == "__main__":
    main()
