"""How long Dice, HD95, ASSD and NSD of 13 labels take: ours, MONAI's and medpy's, on the same cores, and how far their values differ.

python benchmarks/metrics.py PYTHON_OF_AN_ENVIRONMENT_WITH_MONAI_AND_MEDPY [--large] [--shape Z,Y,X] [--times 3]

The maps are made up: 13 ellipsoids at 1.5 x 0.8 x 0.8 mm; the predictions are the same ones, bent smoothly by so many voxels. Medians of
three. --large: 300 x 512 x 512 once, against MONAI alone. All start from label maps in memory; what the peers need to make of them
(one-hot tensors, masks) is not counted. medpy has no NSD. Its HD95 is the percentile of both directions' distances in one list, ours and
MONAI's the larger of the two directions' percentiles: that is what the values differ by, beyond rounding. The cores are all that this
process may use: `taskset -c 1 python …` gives each one.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import save
from scipy import ndimage

from autoseg.arrays.labels import make_membership
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.surface import add_surfaces, measure_surfaces
from autoseg.records.dataset import ClassLabel

LABELS = 13
SPACING = (1.5, 0.8, 0.8)
TOLERANCE = 1.0
BENDS = {"close": 1.5, "poor": 6.0}  # voxels, standard deviation
SHAPE, LARGE = (150, 256, 256), (300, 512, 512)
METRICS = {"dice": "dice", "hd95": "hd95_mm", "assd": "assd_mm", "nsd": "nsd"}


def make_maps(shape: tuple[int, ...], bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Reference and prediction, uint8 (z, y, x)."""
    generator = np.random.default_rng(0)
    coarse = generator.normal(size=(3, 6, 8, 8))
    waves = [ndimage.zoom(part, [n / k for n, k in zip(shape, part.shape)], order=1).astype(np.float32) for part in coarse]
    axes = [np.arange(size, dtype=np.float32).reshape([-1 if axis == own else 1 for axis in range(3)]) for own, size in enumerate(shape)]
    centres, radii = (generator.uniform(*limits, (LABELS, 3)) * shape for limits in ((0.15, 0.85), (0.06, 0.16)))
    maps = []
    for strength in (0.0, bend):
        places = [axis + strength * wave if strength else axis for axis, wave in zip(axes, waves)]
        label, nearest = np.zeros(shape, np.uint8), np.ones(shape, np.float32)
        for number, (centre, radius) in enumerate(zip(centres, radii), 1):
            squares = sum(((place - at) / size) ** 2 for place, at, size in zip(places, centre, radius))
            inside = squares < nearest
            nearest[inside], label[inside] = squares[inside], number
        maps.append(label)
    return maps[0], maps[1]


def measure_ours(reference: np.ndarray, prediction: np.ndarray, times: int) -> dict[str, Any]:
    classes = tuple(ClassLabel(name=str(number), values=(number,)) for number in range(1, LABELS + 1))
    reference, prediction = reference.astype(np.int16), prediction.astype(np.int16)  # as `evaluate` has them
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        rows = score_case("", count_joint(prediction, reference, LABELS), classes, float(np.prod(SPACING)))
        rows = add_surfaces(rows, measure_surfaces(prediction, reference, make_membership(classes), SPACING, TOLERANCE))
        seconds.append(time.perf_counter() - begun)
    return {"seconds": seconds, "values": {name: [getattr(row, field) for row in rows] for name, field in METRICS.items()}}


def measure_peer(python: Path, peer: str, maps: Path, times: int, cores: int) -> dict[str, Any]:
    script = Path(__file__).with_name("reference_metrics.py")
    words = [python, script, peer, maps, str(times), str(TOLERANCE), *map(str, SPACING)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(cores)})
    return json.loads(done.stdout.splitlines()[-1])


def compare(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Medians of seconds, and per metric the largest difference over the classes that both give a value."""
    both = {name: zip(ours["values"][name], values) for name, values in peer["values"].items()}
    far = {name: max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=None) for name, pairs in both.items()}
    faster = statistics.median(peer["seconds"]) / statistics.median(ours["seconds"])
    return {"times_faster": round(faster, 1), "largest_difference": far}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("python", type=Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=None)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    shape = asked.shape or (LARGE if asked.large else SHAPE)
    times, peers = (1, ("monai",)) if asked.large else (asked.times, ("monai", "medpy"))
    rows = []
    for name, bend in BENDS.items():
        reference, prediction = make_maps(shape, bend)
        with tempfile.TemporaryDirectory() as folder:
            maps = Path(folder) / "maps.npz"
            np.savez(maps, reference=reference, prediction=prediction)
            ours = measure_ours(reference, prediction, times)
            del reference, prediction  # the peer's tensors are large
            rows.append({"what": "autoseg", "maps": name, "shape": shape, "cores": cores, **ours})
            for peer in peers:
                measured = measure_peer(asked.python, peer, maps, times, cores)
                rows.append({"what": peer, "maps": name, "shape": shape, **measured, **compare(ours, measured)})
                print(f"{name}: {peer} {rows[-1]['times_faster']} times, differences {rows[-1]['largest_difference']}", flush=True)
    save("metrics_large" if asked.large else "metrics" if asked.shape is None else "metrics_trial", rows)


if __name__ == "__main__":
    main()
