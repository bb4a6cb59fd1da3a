"""Small plans, data sets and runs that the tests of checking, changing and explaining share."""

from pathlib import Path

import msgspec
from builders import make_configuration

from autoseg.io.files import save_record
from autoseg.records.base import compute_digest
from autoseg.records.dataset import Case, Channel, ClassLabel, Dataset
from autoseg.records.fingerprint import CaseFingerprint, Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import Configuration, Plan

GPU = Machine(device="cuda", name="a small GPU", memory=10**9, cores=4)


def make_dataset(dimension: int = 3, channels: int = 1, classes: tuple[str, ...] = ("organ", "lesion"), cases: int = 3) -> Dataset:
    return Dataset(
        root="/scans",
        dimension=dimension,
        unit="mm",
        layout="paired",
        channels=tuple(Channel(name=f"MR{index}", pattern=f"{{case}}_{index}.nii.gz") for index in range(channels)),
        classes=tuple(ClassLabel(name=name, values=(value,)) for value, name in enumerate(classes, 1)),
        cases=tuple(Case(id=f"case{index}", images=(f"case{index}_0.nii.gz",)) for index in range(cases)),
    )


def make_plan(*configurations: Configuration, machine: Machine = GPU, default: str | None = None) -> Plan:
    chosen = configurations or (make_configuration(3), make_configuration(2))
    dimension = max(3 if "3d" in configuration.name else 2 for configuration in chosen)
    return Plan(
        profile="test",
        machine=machine,
        dataset_digest="",
        fingerprint_digest="",
        orientation="LPS",
        axes=tuple(range(dimension)),
        default_configuration=default or chosen[0].name,
        default_reason="the planner preferred it",
        configurations=chosen,
    )


def put(configuration: Configuration, values: dict[str, object]) -> Configuration:
    """The configuration with values under dotted names, unchecked: what a hand may write into plan.json."""
    plain = msgspec.json.decode(msgspec.json.encode(configuration))  # lists, where to_builtins would leave tuples
    for name, value in values.items():
        *way, last = (int(key) if key.isdigit() else key for key in name.split("."))
        place = plain
        for key in way:
            place = place[key]
        assert last in place if isinstance(place, dict) else 0 <= last < len(place)
        place[last] = value
    return msgspec.convert(plain, Configuration)


def write_run(folder: Path, plan: Plan, dataset: Dataset) -> Path:
    """A run as one taken over from nnU-Net: no intensities, no objects."""
    shape, spacing = (12,) * dataset.dimension, (1.0,) * dataset.dimension
    cases = tuple(
        CaseFingerprint(case=case.id, digest="", shape=shape, spacing=spacing, orientation="", cropped_shape=shape, channels=(), classes=())
        for case in dataset.cases
    )
    fingerprint = Fingerprint(cases=cases)
    plan = msgspec.structs.replace(plan, fingerprint_digest=compute_digest(fingerprint))
    for name, record in (("plan", plan), ("dataset", dataset), ("fingerprint", fingerprint)):
        save_record(folder / f"{name}.json", record)
    return folder
