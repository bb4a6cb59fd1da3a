"""Dice, HD95, ASSD and NSD by MONAI or medpy, for benchmarks/metrics.py: runs with the Python of an environment that has them.

python reference_metrics.py monai|medpy MAPS.npz TIMES TOLERANCE Z Y X: MAPS holds reference and prediction (labels 1 … N, uint8, z, y, x),
Z Y X is the spacing in mm; prints seconds and values by class as JSON. Each library is called as its documentation shows; tensors and masks
are made beforehand.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from importlib import metadata

import numpy as np

Values = dict[str, list[float]]


def prepare_monai(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> Callable[[], Values]:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance, compute_surface_dice

    labels = int(reference.max())

    def encode(label: np.ndarray) -> torch.Tensor:
        found = torch.zeros((1, labels + 1, *label.shape))
        return found.scatter_(1, torch.from_numpy(label.astype(np.int64))[None, None], 1.0)

    true, found = encode(reference), encode(prediction)

    def measure() -> Values:
        values = {
            "dice": compute_dice(found, true, include_background=False),
            "hd95": compute_hausdorff_distance(found, true, percentile=95, spacing=spacing),
            "assd": compute_average_surface_distance(found, true, symmetric=True, spacing=spacing),
            "nsd": compute_surface_dice(found, true, class_thresholds=[tolerance] * labels, spacing=spacing),
        }
        return {name: [float(value) for value in own[0]] for name, own in values.items()}

    return measure


def prepare_medpy(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> Callable[[], Values]:
    from medpy.metric import binary

    masks = [(prediction == number, reference == number) for number in range(1, int(reference.max()) + 1)]

    def measure() -> Values:
        return {
            "dice": [float(binary.dc(*pair)) for pair in masks],
            "hd95": [float(binary.hd95(*pair, voxelspacing=spacing)) for pair in masks],
            "assd": [float(binary.assd(*pair, voxelspacing=spacing)) for pair in masks],
        }

    return measure


PREPARE = {"monai": prepare_monai, "medpy": prepare_medpy}


def main() -> None:
    peer, path, times, tolerance, *spacing = sys.argv[1:]
    maps = np.load(path)
    measure = PREPARE[peer](maps["reference"], maps["prediction"], tuple(map(float, spacing)), float(tolerance))
    seconds, values = [], {}
    for _ in range(int(times)):
        begun = time.perf_counter()
        values = measure()
        seconds.append(time.perf_counter() - begun)
    values = {name: [value if math.isfinite(value) else None for value in own] for name, own in values.items()}
    print(json.dumps({"version": metadata.version(peer), "seconds": seconds, "values": values}))


if __name__ == "__main__":
    main()
