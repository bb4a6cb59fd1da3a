"""Whether our plans by nnU-Net's rules are nnU-Net's: every planning field, for made-up fingerprints and its five planners.

python benchmarks/planner_parity.py --reference PLANS.jsonl [--python PYTHON_OF_AN_ENVIRONMENT_WITH_NNUNETV2] [--count 300] [--seed 0]
python benchmarks/planner_parity.py --write FINGERPRINTS.jsonl [--count 300] [--seed 0]

PLANS.jsonl keeps what nnU-Net planned (reference_planner.py); with --python what is missing in it is planned first, which takes long.
"""

import argparse
import json
import math
import random
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import save

from autoseg.errors import AutosegError
from autoseg.io.nnunet import read_nnunet_folder
from autoseg.io.nnunet_plan import format_nnunet_plan
from autoseg.io.profiles import read_profile
from autoseg.planning.plan import Request, make_plan
from autoseg.records.machine import Machine

PROFILES = {
    "ExperimentPlanner": "nnunet",
    "ResEncUNetPlanner": "nnunet-resenc",
    "nnUNetPlannerResEncM": "nnunet-resenc-m",
    "nnUNetPlannerResEncL": "nnunet-resenc-l",
    "nnUNetPlannerResEncXL": "nnunet-resenc-xl",
}
# Names, and where prepared data lie, are no decisions.
NOT_COMPARED = ("dataset_name", "plans_name", "experiment_planner_used", "image_reader_writer", "data_identifier")
TOLERANCE = 1e-12  # relative, of numbers that are not whole
MACHINE = Machine(device="cuda", name="GPU", memory=8 * 10**9, cores=8)
CHANNELS = ("CT", "ct", "MRI", "T1", "FLAIR", "noNorm", "NoNorm", "zscore", "rgb_to_0_1", "rescale_to_0_1", "PET")
RATIOS = (1.0, 1.0, 1.0, 1.5, 2.0, 2.5, 2.99, 3.0, 3.01, 4.0, 5.0, 6.0, 8.0, 12.0)
EDGES = (1.0, 1.0, 0.5, 0.7676, 0.78125, 1.5625, 0.005, 3.0)


def make_fingerprints(count: int = 300, seed: int = 0) -> list[dict[str, Any]]:
    """`count` pairs of nnU-Net's dataset.json and dataset_fingerprint.json; any prefix holds all kinds, a quarter of them images."""
    draw = random.Random(seed)
    return [_make_pair(draw, flat=number % 4 == 3) for number in range(count)]


def _make_pair(draw: random.Random, flat: bool) -> dict[str, Any]:
    cases = draw.choice((1, 2, 3, 4, 10, 20, 131, 200, 484, 2000, round(math.exp(draw.uniform(0, math.log(2000))))))
    spacings, shapes = _draw_images(draw, cases) if flat else _draw_volumes(draw, cases)
    channels = [draw.choice(CHANNELS) for _ in range(draw.choice((1, 1, 1, 2, 3, 4)))]
    properties = {str(number): _draw_intensities(draw) for number in range(len(channels))}
    kept = draw.choice((1.0, 1.0, 0.75, 0.7499, draw.uniform(0.2, 1.0)))
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": _draw_labels(draw),
        "numTraining": cases if draw.random() < 0.9 else draw.randint(1, 2000),
        "file_ending": ".nii.gz",
    }
    fingerprint = {
        "foreground_intensity_properties_per_channel": properties,
        "median_relative_size_after_cropping": kept,
        "shapes_after_crop": shapes,
        "spacings": spacings,
    }
    return {"dataset": dataset, "fingerprint": fingerprint}


def _draw_labels(draw: random.Random) -> dict[str, Any]:
    """2 to 118 labels with the background; now and then regions, or an ignore label."""
    classes = draw.choice((1, 1, 2, 3, draw.randint(1, 15), draw.randint(15, 117)))
    labels: dict[str, Any] = {"background": 0, **{f"class {number}": number for number in range(1, classes + 1)}}
    if classes > 2 and draw.random() < 0.2:
        labels["class 1"] = [1, 2, 3]
        labels["class 2"] = [2, 3]
    if draw.random() < 0.15:
        labels["ignore"] = classes + 1
    return labels


def _draw_intensities(draw: random.Random) -> dict[str, float]:
    values = sorted(draw.uniform(-1000, 2000) for _ in range(5))
    names = ("min", "percentile_00_5", "median", "percentile_99_5", "max")
    return {**dict(zip(names, values)), "mean": draw.uniform(values[1], values[3]), "std": draw.uniform(0.1, 300)}


def _draw_edge(draw: random.Random) -> int:
    return draw.choice((draw.randint(1, 40), round(math.exp(draw.uniform(math.log(8), math.log(600)))), draw.choice((64, 128, 256, 512))))


def _vary(draw: random.Random, shape: list[int], amount: float) -> list[int]:
    return [size if size == 1 else max(1, round(size * draw.uniform(1 - amount, 1 + amount))) for size in shape]


def _draw_images(draw: random.Random, cases: int) -> tuple[list[list[float]], list[list[int]]]:
    """Images as nnU-Net stores them: one slice, 999 pixel edges thick."""
    edge = draw.choice((1.0, 1.0, draw.uniform(0.05, 2)))
    pixel = [edge * draw.choice((1.0, 1.0, 1.0, 2.0, 2.5)), edge * draw.choice((1.0, 1.0, 1.0, 3.9))]
    spread = draw.choice((0.0, 0.0, 0.0, 0.1, 0.4))
    shape = draw.choice(([_draw_edge(draw), _draw_edge(draw)], [400, 400], [draw.randint(400, 3000), draw.randint(400, 3000)]))
    amount = draw.choice((0.0, 0.3))
    spacings, shapes = [], []
    for _ in range(cases):
        scale = draw.uniform(1 - spread, 1 + spread)
        own = [step * scale for step in pixel]
        spacings.append([999.0 * max(own), *own])
        shapes.append([1, *_vary(draw, shape, amount)])
    return spacings, shapes


def _draw_volumes(draw: random.Random, cases: int) -> tuple[list[list[float]], list[list[int]]]:
    """Volumes of one to three groups (scanners), the coarse axis anywhere, mostly first."""
    groups = [_draw_group(draw) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    shared = draw.random() < 0.7
    coarse = draw.choice((0, 0, 0, 1, 2))
    amount, spread = draw.choice((0.0, 0.1, 0.4)), draw.choice((0.0, 0.0, 0.15))
    spacings, shapes = [], []
    for _ in range(cases):
        spacing, shape = draw.choice(groups)
        scale = draw.uniform(1 - spread, 1 + spread)
        order = _put_first(coarse if shared else draw.randrange(3))
        spacings.append([spacing[axis] * scale for axis in order])
        shapes.append(_vary(draw, [shape[axis] for axis in order], amount))
    return spacings, shapes


def _put_first(place: int) -> tuple[int, ...]:
    """The order of axes that brings axis 0 to `place`."""
    return ((0, 1, 2), (1, 0, 2), (1, 2, 0))[place]


def _draw_group(draw: random.Random) -> tuple[list[float], list[int]]:
    edge = draw.choice((*EDGES, draw.uniform(0.3, 3)))
    ratio = draw.choice((*RATIOS, draw.uniform(1, 12)))
    second = draw.choice((1.0, 1.0, 1.0, 1.0, ratio, 2.0, draw.uniform(0.5, 2.2)))
    shape = [_draw_edge(draw) for _ in range(3)]
    if draw.random() < 0.4:
        shape[1:] = [draw.choice((256, 400, 512))] * 2
    if draw.random() < 0.08:
        shape[draw.choice((0, 0, 1))] = 1
    return [edge * ratio, edge * second, edge], shape


def write_fingerprints(path: Path, pairs: list[dict[str, Any]]) -> None:
    """One pair per line, for reference_planner.py."""
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


def run_reference(python: str, pairs: list[dict[str, Any]], plans: Path) -> None:
    """Lets nnU-Net plan what is not in `plans` yet."""
    with tempfile.TemporaryDirectory() as folder:
        write_fingerprints(Path(folder) / "fingerprints.jsonl", pairs)
        script = Path(__file__).with_name("reference_planner.py")
        subprocess.run([python, str(script), str(Path(folder) / "fingerprints.jsonl"), str(plans)], check=True)


def read_reference(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of reference_planner.py, in the order of the fingerprints."""
    entries = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    yield from sorted(entries, key=lambda entry: (entry["number"], list(PROFILES).index(entry["planner"])))


def count_kinds(pairs: list[dict[str, Any]], folder: Path) -> dict[str, int]:
    """How many fingerprints are of images and of volumes, and how many of the images we read as volumes of one slice (io/nnunet.py)."""
    kinds: Counter[str] = Counter()
    for number, pair in enumerate(pairs):
        write_pair(pair, folder)
        imported = read_nnunet_folder(folder)
        image = number % 4 == 3  # as in make_fingerprints
        kinds["images" if image else "volumes"] += 1
        kinds["images_read_as_volumes"] += image and imported is not None and imported[0].dimension == 3
    return dict(kinds)


def write_pair(pair: dict[str, Any], folder: Path) -> None:
    """The two files of a fingerprint, as nnU-Net leaves them behind."""
    (folder / "dataset.json").write_text(json.dumps(pair["dataset"]))
    (folder / "dataset_fingerprint.json").write_text(json.dumps(pair["fingerprint"]))


def plan_ours(pair: dict[str, Any], profile: str, folder: Path) -> dict[str, Any]:
    """Our plan from the same two files, in nnU-Net's form."""
    write_pair(pair, folder)
    imported = read_nnunet_folder(folder)
    assert imported is not None, folder
    dataset, fingerprint = imported
    plan = make_plan(dataset, fingerprint, read_profile(profile), MACHINE, Request())
    assert fingerprint.summary is not None, folder
    return json.loads(format_nnunet_plan(dataset, fingerprint, plan, fingerprint.summary.channels, "Parity"))


def compare(theirs: Any, ours: Any, place: str = "") -> list[dict[str, Any]]:
    """Every field in which the two differ; absent fields count as "absent"."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = []
        for key in sorted(theirs.keys() | ours.keys()):
            if key not in NOT_COMPARED:
                found += compare(theirs.get(key, "absent"), ours.get(key, "absent"), f"{place}.{key}" if place else key)
        return found
    return [] if _is_same(theirs, ours) else [{"field": place, "nnunet": theirs, "autoseg": ours}]


def _is_same(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_is_same, theirs, ours))
    if any(isinstance(value, bool | str | None) for value in (theirs, ours)):
        return type(theirs) is type(ours) and theirs == ours
    if isinstance(theirs, int | float) and isinstance(ours, int | float):
        return theirs == ours or math.isclose(theirs, ours, rel_tol=TOLERANCE, abs_tol=0.0)
    return theirs == ours


def compare_all(pairs: list[dict[str, Any]], reference: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Counts per profile, and the list of all differences; what nnU-Net cannot plan is listed apart."""
    counts: dict[str, Counter[str]] = {profile: Counter() for profile in PROFILES.values()}
    differences, refused = [], []
    with tempfile.TemporaryDirectory() as folder:
        kinds = count_kinds(pairs, Path(folder))
        for entry in reference:
            number, profile = entry["number"], PROFILES[entry["planner"]]
            if number >= len(pairs):
                continue
            if "error" in entry:
                refused.append({"fingerprint": number, "profile": profile, "nnunet": entry["error"]})
                continue
            try:
                found = compare(entry["plans"], plan_ours(pairs[number], profile, Path(folder)))
            except (AutosegError, ArithmeticError, ValueError, IndexError) as error:
                found = [{"field": "", "nnunet": "a plan", "autoseg": f"{type(error).__name__}: {error}"}]
            configurations = entry["plans"]["configurations"]
            counts[profile] += Counter(
                plans=1, equal_plans=not found, configurations=len(configurations), cascades="3d_lowres" in configurations
            )
            differences += [{"fingerprint": number, "profile": profile, **difference} for difference in found]
    fields = Counter(difference["field"].split(".")[-1] for difference in differences)
    return {
        "fingerprints": {"all": len(pairs), **kinds},
        "by_profile": {profile: dict(count) for profile, count in counts.items()},
        "different_fields": dict(fields),
        "differences": differences,
        "not_planned_by_nnunet": refused,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--python")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pairs = make_fingerprints(options.count, options.seed)
    if options.write:
        write_fingerprints(options.write, pairs)
    if options.reference:
        if options.python:
            run_reference(options.python, pairs, options.reference)
        results = compare_all(pairs, read_reference(options.reference))
        save("planner_parity", {"seed": options.seed, "nnunetv2": "2.8.1", **results})


if __name__ == "__main__":
    main()
