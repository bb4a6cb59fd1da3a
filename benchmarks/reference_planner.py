"""nnU-Net's own plans for fingerprints made up by planner_parity.py. Runs in an environment that has nnunetv2 2.8.1 (and no autoseg).

python reference_planner.py FINGERPRINTS.jsonl PLANS.jsonl [--part 0/2] [--planners ExperimentPlanner,…] [--weights]

FINGERPRINTS holds one {"dataset": dataset.json, "fingerprint": dataset_fingerprint.json} per line. Every line of PLANS is one plan,
{"number": line, "planner": class, "plans": nnUNetPlans.json, "seconds": …}, or "error" instead of "plans"; what is there already is not
planned again, so that a run can be stopped at any time. `--part 0/2` plans every second fingerprint, for two processes on one file.
nnU-Net builds a network for every patch that it tries; here they are built on torch's meta device, without weights (`--weights`: with).
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path

NAME = "Dataset001_Parity"
PLANNERS = {
    "ExperimentPlanner": "default_experiment_planner",
    "ResEncUNetPlanner": "resencUNet_planner",
    "nnUNetPlannerResEncM": "residual_unets.residual_encoder_unet_planners",
    "nnUNetPlannerResEncL": "residual_unets.residual_encoder_unet_planners",
    "nnUNetPlannerResEncXL": "residual_unets.residual_encoder_unet_planners",
}


def set_folders(root: Path) -> None:
    """nnU-Net reads its folders from the environment when it is imported."""
    for name in ("raw", "preprocessed", "results"):
        (root / name / NAME).mkdir(parents=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)


def write_inputs(root: Path, pair: dict) -> None:
    """The two files, and one scan in name only: the reader is given, so that nnU-Net opens none."""
    dataset = {**pair["dataset"], "overwrite_image_reader_writer": "SimpleITKIO"}
    for folder, scan in (("imagesTr", "case_0000.nii.gz"), ("labelsTr", "case.nii.gz")):
        (root / "raw" / NAME / folder).mkdir(exist_ok=True)
        (root / "raw" / NAME / folder / scan).touch()
    (root / "raw" / NAME / "dataset.json").write_text(json.dumps(dataset))
    (root / "preprocessed" / NAME / "dataset_fingerprint.json").write_text(json.dumps(pair["fingerprint"]))


def find_planner(name: str) -> type:
    """The planner class."""
    from importlib import import_module

    return getattr(import_module(f"nnunetv2.experiment_planning.experiment_planners.{PLANNERS[name]}"), name)


def make_plans(name: str, device: str, prepared: Path) -> dict:
    """What nnU-Net writes into its folder `prepared` for the inputs in its folders."""
    import torch

    with contextlib.redirect_stdout(io.StringIO()), torch.device(device):
        planner = find_planner(name)(NAME)
        planner.plan_experiment()
        path = prepared / f"{planner.plans_identifier}.json"
    plans = json.loads(path.read_text())
    path.unlink()  # nnU-Net would keep configurations of the plans before
    return plans


def read_done(path: Path) -> set[tuple[int, str]]:
    """What an earlier run has planned; a line that was cut off by its end does not count."""
    if not path.is_file():
        return set()
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        append(path, b"\n")
    done = set()
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            done.add((entry["number"], entry["planner"]))
    return done


def append(path: Path, data: bytes) -> None:
    """Adds to a file in one write, so that two processes do not mix their lines."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)


def plan_one(name: str, device: str, prepared: Path) -> dict:
    """The plans with the seconds they took, or nnU-Net's error."""
    begun = time.monotonic()
    try:
        found = {"plans": make_plans(name, device, prepared)}
    except Exception as error:  # whatever nnU-Net stumbles over is a result here
        found = {"error": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": round(time.monotonic() - begun, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fingerprints", type=Path)
    parser.add_argument("plans", type=Path)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--planners", default=",".join(PLANNERS))
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    done = read_done(options.plans)
    pairs = [json.loads(line) for line in options.fingerprints.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        set_folders(Path(folder))
        for number in range(part, len(pairs), parts):
            write_inputs(Path(folder), pairs[number])
            for planner in options.planners.split(","):
                if (number, planner) in done:
                    continue
                found = plan_one(planner, "cpu" if options.weights else "meta", Path(folder) / "preprocessed" / NAME)
                entry = {"number": number, "planner": planner, **found}
                append(options.plans, json.dumps(entry).encode() + b"\n")
                print(number, planner, found["seconds"], found.get("error", ""), flush=True)


if __name__ == "__main__":
    main()
