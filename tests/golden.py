"""Golden pairs: descriptions of data sets in a few rows, and what every profile plans for them (plans/golden/NAME.json).

`python tests/golden.py` writes the plans anew; a new pair begins as a file {"data": {...}}. Do so only for a change of the rules that
is meant, and say in the commit why it is one.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
from instances_for_tests import make_instances, spread_boxes

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
INSTANCE_FIELDS = ("detection", "thresholds", "optimizer", "augmentation")
FIELDS = (
    "spacing",
    "median_shape",
    "patch_size",
    "batch_size",
    "accumulation",
    "normalization",
    "network",
    "batch_dice",
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

    Also `kept` (share of a scan that cropping leaves) and `extents` (mm, the longest edge of every object of a class). With `objects`
    (their number in a case, and the shortest and longest edges in mm) it is an instance task.
    """
    if "objects" in data:
        return _build_instances(data)
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


def _build_instances(data: dict[str, Any]) -> tuple[Dataset, Fingerprint]:
    """As build_records, for a single row of scans."""
    ((count, spacing, shape),) = data["rows"]
    steps = tuple(float(step) for step in spacing)
    boxes = spread_boxes(tuple(shape), data["objects"]["count"], tuple(data["objects"]["edges"]), steps)
    return make_instances([boxes] * count, tuple(shape), steps, tuple(data["channels"]))


def plan_everything(data: dict[str, Any]) -> dict[str, Any]:
    """What every profile decides, reduced to the decisions, as plain values."""
    records = build_records(data)
    reference = () if "objects" in data else REFERENCE  # which knows of no instances
    plans = {name: make_plan(*records, read_profile(name), CPU, Request()) for name in reference}
    plans |= {name: make_plan(*records, read_profile("autoseg"), machine, Request()) for name, machine in GPUS.items()}
    plans["autoseg-cpu in 15 minutes"] = make_plan(*records, read_profile("autoseg-cpu"), CPU, Request(minutes=15))
    return {name: _reduce(plan) for name, plan in plans.items()}


def _reduce(plan: Plan) -> dict[str, Any]:
    configurations = {c.name: {field: getattr(c, field) for field in FIELDS} for c in plan.configurations}
    for c in plan.configurations:
        configurations[c.name]["rotation"] = c.augmentation.rotation
        if c.thresholds is not None:
            configurations[c.name] |= {field: getattr(c, field) for field in INSTANCE_FIELDS}
    kept = {"axes": plan.axes, "default_configuration": plan.default_configuration, "configurations": configurations}
    return json.loads(msgspec.json.encode(kept))


def format_pair(pair: dict[str, Any]) -> str:
    """As JSON with a line per configuration, so that a change shows where it is."""
    plans = []
    for name, plan in pair["plans"].items():
        lines = [f'   "{configuration}": {json.dumps(values)}' for configuration, values in plan["configurations"].items()]
        head = f'  "{name}": {{"axes": {plan["axes"]}, "default_configuration": "{plan["default_configuration"]}", "configurations": {{'
        plans.append(head + "\n" + ",\n".join(lines) + "\n  }}")
    return f'{{\n "data": {json.dumps(pair["data"])},\n "plans": {{\n' + ",\n".join(plans) + "\n }\n}\n"


def main() -> None:
    """Plans every data set anew and writes the pairs."""
    for name in list_names():
        data = read_pair(name)["data"]
        pair = {"data": data, "plans": plan_everything(data)}
        (FOLDER / f"{name}.json").write_text(format_pair(pair))


if __name__ == "__main__":
    main()
