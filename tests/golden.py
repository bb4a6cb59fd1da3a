"""Golden pairs: descriptions of data sets in a few rows, and what every profile plans for them (plans/golden/NAME.json).

`python tests/golden.py` writes the plans anew. Do so only for a change of the rules that is meant, and say in the commit why it is one.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from autoseg.io.profiles import read_profile
from autoseg.planning.plan import Request, make_plan
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import CaseFingerprint, ClassObjects, Fingerprint, PooledIntensities, Summary
from autoseg.records.machine import Machine
from autoseg.records.plan import Plan

FOLDER = Path(__file__).parents[1] / "plans" / "golden"
GPUS = {f"autoseg at {size} GB": Machine(device="cuda", name="GPU", memory=size * 10**9, cores=8) for size in (8, 24, 80)}
CPU = Machine(device="cpu", name="CPU", memory=16 * 10**9, cores=2, flops=150e9, flops_source="estimated")
REFERENCE = ("nnunet", "nnunet-resenc", "nnunet-resenc-m", "nnunet-resenc-l", "nnunet-resenc-xl")
FIELDS = (
    "spacing",
    "median_shape",
    "patch_size",
    "batch_size",
    "accumulation",
    "normalization",
    "network",
    "batch_dice",
    "augmentation",
    "mirror_axes",
    "memory",
)


def list_names() -> list[str]:
    """Names of the golden pairs."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_pair(name: str) -> dict[str, Any]:
    """`data` (see build_records) and `plans` by profile."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def build_records(data: dict[str, Any]) -> tuple[Dataset, Fingerprint]:
    """Records of a data set described by `rows` (cases, spacing in mm, cropped shape), `classes`, `channels`.

    Also `kept` (share of a scan that cropping leaves) and `extents` (mm, the longest edge of every object of a class).
    """
    classes = data["classes"] if isinstance(data["classes"], list) else [f"class {number}" for number in range(1, data["classes"])]
    channels = data.get("channels", ["MRI"])
    extents = data.get("extents", [])
    objects = tuple(
        ClassObjects(name=name, voxels=9, volume=9.0, objects=1, object_volumes=(9.0,) * 5, object_extents=(float(extent),) * 5)
        for name, extent in zip(classes, extents)
    )
    measured = [
        CaseFingerprint(
            case="",
            digest="",
            shape=tuple(shape),
            spacing=tuple(float(step) for step in spacing),
            orientation="LPS",
            cropped_shape=tuple(shape),
            channels=(),
            classes=objects,
        )
        for count, spacing, shape in data["rows"]
        for _ in range(count)
    ]
    names = [f"case_{number:04d}" for number in range(len(measured))]
    values = PooledIntensities(mean=100.0, median=100.0, std=40.0, minimum=-1000.0, maximum=2000.0, low=-20.0, high=200.0)
    dataset = Dataset(
        root="/data",
        dimension=len(data["rows"][0][1]),
        unit="mm",
        layout="paired",
        channels=tuple(Channel(name=channel, pattern=f"{{case}}_{number:04d}.nii") for number, channel in enumerate(channels)),
        classes=tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate(classes, 1)),
        cases=tuple(Case(id=name, images=()) for name in names),
    )
    cases = tuple(msgspec.structs.replace(case, case=name) for case, name in zip(measured, names))
    return dataset, Fingerprint(cases=cases, summary=Summary(kept=data.get("kept", 1.0), channels=(values,) * len(channels)))


def plan_everything(data: dict[str, Any]) -> dict[str, Any]:
    """What every profile decides, reduced to the decisions, as plain values."""
    records = build_records(data)
    plans = {name: make_plan(*records, read_profile(name), CPU, Request()) for name in REFERENCE}
    plans |= {name: make_plan(*records, read_profile("autoseg"), machine, Request()) for name, machine in GPUS.items()}
    plans["autoseg-cpu in 15 minutes"] = make_plan(*records, read_profile("autoseg-cpu"), CPU, Request(minutes=15))
    return {name: _reduce(plan) for name, plan in plans.items()}


def _reduce(plan: Plan) -> dict[str, Any]:
    configurations = {c.name: {field: getattr(c, field) for field in FIELDS} for c in plan.configurations}
    kept = {"axes": plan.axes, "default_configuration": plan.default_configuration, "configurations": configurations}
    return json.loads(msgspec.json.encode(kept))


ISO = [1.0, 1.0, 1.0]
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    # the rows of the reference's golden table, and with them four of the Medical Segmentation Decathlon
    "msd_hippocampus": {"rows": [[260, ISO, [36, 50, 35]]], "classes": ["Anterior", "Posterior"], "extents": [22, 24]},
    "msd_brain_tumour": {
        "rows": [[484, ISO, [138, 169, 138]]],
        "classes": ["edema", "non-enhancing", "enhancing"],
        "channels": ["FLAIR", "T1w", "t1gd", "T2w"],
        "kept": 0.3,
        "extents": [70, 30, 40],
    },
    "msd_liver": {
        "rows": [[131, [1.0, 0.7676, 0.7676], [432, 512, 512]]],
        "classes": ["liver", "tumour"],
        "channels": ["CT"],
        "extents": [210, 25],
    },
    "thick_slices": {"rows": [[160, [10.0, 1.5625, 1.5625], [9, 237, 208]], [40, [5.0, 1.5625, 1.5625], [18, 237, 208]]], "classes": 4},
    "colour_images": {"rows": [[100, [1.0, 1.0], [400, 400]]], "classes": 2, "channels": ["red", "green", "blue"]},
    # the other shapes of the Medical Segmentation Decathlon
    "msd_heart": {"rows": [[20, [1.37, 1.25, 1.25], [115, 320, 232]]], "classes": ["left atrium"], "extents": [90]},
    "msd_prostate": {
        "rows": [[32, [3.6, 0.62, 0.62], [20, 320, 319]]],
        "classes": ["PZ", "TZ"],
        "channels": ["T2", "ADC"],
        "extents": [45, 40],
    },
    "msd_lung": {"rows": [[63, [1.24, 0.785, 0.785], [252, 512, 512]]], "classes": ["cancer"], "channels": ["CT"], "extents": [35]},
    "msd_pancreas": {
        "rows": [[281, [2.5, 0.8, 0.8], [93, 512, 512]]],
        "classes": ["pancreas", "cancer"],
        "channels": ["CT"],
        "extents": [140, 25],
    },
    "msd_hepatic_vessel": {
        "rows": [[303, [5.0, 0.8, 0.8], [49, 512, 512]]],
        "classes": ["vessel", "tumour"],
        "channels": ["CT"],
        "extents": [150, 30],
    },
    "msd_spleen": {"rows": [[41, [5.0, 0.79, 0.79], [90, 512, 512]]], "classes": ["spleen"], "channels": ["CT"], "extents": [120]},
    "msd_colon": {"rows": [[126, [5.0, 0.78, 0.78], [95, 512, 512]]], "classes": ["cancer"], "channels": ["CT"], "extents": [45]},
    # what else users bring
    "one_case": {"rows": [[1, [2.0, 1.0, 1.0], [60, 128, 128]]], "classes": 2},
    "one_slice": {"rows": [[30, [5.0, 1.0, 1.0], [1, 256, 256]]], "classes": 3},
    "one_voxel_not_first": {"rows": [[12, [1.0, 1.0, 1.0], [200, 1, 180]]], "classes": 2},
    "extreme_anisotropy": {"rows": [[25, [12.0, 1.0, 1.0], [14, 400, 400]]], "classes": 2, "extents": [30]},
    "coarse_axis_last": {"rows": [[25, [0.8, 0.8, 4.0], [320, 320, 30]]], "classes": 3},
    "ratio_just_below_three": {"rows": [[40, [2.99, 1.0, 1.0], [40, 300, 300]]], "classes": 2},
    "ratio_just_above_three": {"rows": [[40, [3.01, 1.0, 1.0], [40, 300, 300]]], "classes": 2},
    "spacing_ties": {"rows": [[16, [3.0, 3.0, 0.5], [60, 60, 300]]], "classes": 2},
    "whole_body_118_classes": {"rows": [[500, [1.5, 1.5, 1.5], [333, 255, 255]]], "classes": 118, "channels": ["CT"]},
    "whole_body_low_resolution": {"rows": [[100, [3.0, 0.98, 0.98], [320, 512, 512]]], "classes": 20, "channels": ["CT"]},
    "electron_microscopy": {"rows": [[4, [0.005, 0.005, 0.005], [165, 768, 1024]]], "classes": 2, "extents": [0.4]},
    "light_sheet": {"rows": [[8, [2.0, 0.4, 0.4], [120, 1024, 1024]]], "classes": 2, "extents": [9]},
    "tiny_volumes": {"rows": [[300, ISO, [12, 11, 13]]], "classes": 2},
    "tiny_images": {"rows": [[2000, [1.0, 1.0], [28, 28]]], "classes": 2},
    "large_images": {"rows": [[30, [1.0, 1.0], [5000, 4000]]], "classes": 4, "channels": ["red", "green", "blue"]},
    "long_images": {"rows": [[60, [1.0, 1.0], [64, 2048]]], "classes": 2},
    "images_with_oblong_pixels": {"rows": [[60, [3.9, 1.0], [120, 512]]], "classes": 2},
    "half_voxel_medians": {"rows": [[1, ISO, [40, 51, 35]], [1, ISO, [41, 60, 36]]], "classes": 3},
    "mixed_spacings": {
        "rows": [[10, [1.0, 0.7, 0.7], [300, 512, 512]], [14, [5.0, 0.8, 0.8], [60, 512, 512]], [9, [2.5, 0.9, 0.9], [120, 400, 400]]],
        "classes": 3,
        "channels": ["CT"],
    },
    "two_thousand_cases": {"rows": [[2000, [1.2, 1.0, 1.0], [150, 200, 200]]], "classes": 5},
    "left_and_right": {"rows": [[50, ISO, [160, 200, 180]]], "classes": ["left kidney", "right kidney"], "extents": [110, 110]},
    "cropped_brains": {"rows": [[40, ISO, [140, 170, 140]]], "classes": 5, "channels": ["T1", "noNorm", "CT"], "kept": 0.7},
}


def main() -> None:
    """Plans every description anew and writes the pairs."""
    FOLDER.mkdir(exist_ok=True)
    for name, data in DESCRIPTIONS.items():
        pair = {"data": data, "plans": plan_everything(data)}
        (FOLDER / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(pair), indent=1) + b"\n")


if __name__ == "__main__":
    main()
