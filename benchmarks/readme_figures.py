"""Writes the README's figures from benchmarks/results, so that none is typed by hand.

python benchmarks/readme_figures.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures: python benchmarks/readme_figures.py -->", "<!-- end of figures -->"


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def describe(name: str) -> str:
    return format_machine(load(name)["machine"])


def format_machine(machine: dict[str, Any]) -> str:
    instructions = machine["instructions"][-1] if machine["instructions"] else "none"
    versions = ", ".join(f"{key} {value}" for key, value in machine["versions"].items())
    hardware = f"{machine['cpu']}, {machine['cores']} cores ({instructions})"
    return f"{hardware}, Python {machine['python']}, {versions}, commit {machine['commit']}"


def show_interval(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def make_hippocampus() -> list[str]:
    lines = ["**Hippocampus** (MR, 200 cases), fold 0, mean Dice of two classes on 40 unseen cases; `benchmarks/hippocampus.py`:", ""]
    lines += ["| minutes asked | minutes taken | steps | mean Dice | by class |", "|---|---|---|---|---|"]
    rows = sorted(load("hippocampus")["results"], key=lambda row: row["minutes"])
    for row in rows:
        classes = ", ".join(f"{name} {show_interval(value)}" for name, value in row["dice"].items())
        taken = row["training_seconds"] / 60
        lines.append(f"| {row['minutes']:g} | {taken:.1f} | {row['steps']} | **{row['mean_dice']:.4f}** | {classes} |")
    same = "yes" if all(row["equal_to_fold_scores"] for row in rows) else "no"
    closing = f"In brackets 95 % bootstrap intervals over cases. Scores of `predict` and `evaluate` equal to the fold's own: {same}."
    return [*lines, "", closing, f"One seed each. Machine: {describe('hippocampus')}."]


def show_fetal_head(result: dict[str, Any]) -> str:
    return (
        f"- Fetal heads (ultrasound, 119 images 800x540, `--groups '^(\\d+)_'`), 10 minutes asked, {result['training_seconds'] / 60:.1f} "
        f"taken: Dice **{result['mean_dice']:.4f}** on the fold's unseen fetuses, fetuses in two folds: {result['fetuses_in_two_folds']}."
    )


def show_sarcoma(result: dict[str, Any]) -> str:
    return (
        f"- Sarcoma (MR, 5 patients, by two patterns), 2 minutes, no quality asked: {result['on_own_grid']} of {result['masks']} masks "
        f"on their own scan's grid, Dice {result['mean_dice']:.2f}."
    )


def show_startup(result: dict[str, Any]) -> str:
    return f"- `autoseg --help`: {result['autoseg --help']:.3f} s, median of 11 (an empty Python {result['python -c pass']:.3f} s)."


OTHERS = {"fetal_head": show_fetal_head, "sarcoma": show_sarcoma, "startup": show_startup}


def make_others() -> list[str]:
    """One line per result that there is."""
    lines = [show(load(name)["results"]) for name, show in OTHERS.items() if (RESULTS / f"{name}.json").is_file()]
    return ["**Others** (`benchmarks/real_scans.py`, `benchmarks/startup.py`):", "", *lines] if lines else []


def make_planner() -> list[str]:
    """What the planner is measured by: equal decisions, memory, speed, and what it is worth in the same minutes."""
    lines = ["**The planner**:", ""]
    parity, memory = load("planner_parity")["results"], load("memory")["results"]
    counts = parity["by_profile"].values()
    equal, plans = sum(count["equal_plans"] for count in counts), sum(count["plans"] for count in counts)
    lines.append(
        f"- Decisions of nnU-Net {parity['nnunetv2']} (`benchmarks/planner_parity.py`): {equal} of {plans} plans equal in every field, "
        f"{parity['fingerprints']['all']} made-up fingerprints, five planners, {len(parity['differences'])} differences."
    )
    errors = memory["largest_errors"]
    lines.append(
        f"- Memory (`benchmarks/memory_table.py`), {len(memory['cpu'])} networks on a CPU: what is saved for the backward pass "
        f"is counted to within {errors['cpu saved']:.1%}, the peak of torch's allocations in a training step to within "
        f"{errors['cpu tensors']:.1%}. {'On a GPU: see the table.' if isinstance(memory['cuda'], dict) else 'Not measured on a GPU yet.'}"
    )
    speed = load("planning_speed")["results"]
    made_up, scans = speed["fingerprint_of_500_cases_seconds"], speed["scans_seconds"]
    lines.append(
        f"- Speed (`benchmarks/planning_speed.py`): 500 cases from a fingerprint in {max(made_up.values()):.1f} s at most, start-up "
        f"included; {scans['cases']} hippocampus scans measured and planned in {scans['autoseg'] / scans['nnunet']:.2f} of nnU-Net's time "
        f"({scans['autoseg']:.1f} s against {scans['nnunet']:.1f} s)."
    )
    if (RESULTS / "accept_plan.json").is_file():
        lines.append(
            "- nnU-Net prepares, trains two steps and validates with plans written by `--format nnunet` (`benchmarks/accept_plan.py`)."
        )
    return lines + (make_profiles() if (RESULTS / "profiles.json").is_file() else [])


def make_profiles() -> list[str]:
    rows = load("profiles")["results"]
    head = "mean Dice on fold 0 by profile, both in our engine; all trainings of a data set at the same time, each on a share of a core"
    lines = ["", f"{rows[0]['minutes']:g} minutes (`benchmarks/profiles.py --side-by-side`): {head}:", ""]
    lines += ["| scans | profile | seed | steps | mean Dice |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["data"], row["profile"], row["seed"])):
        lines.append(f"| {row['data']} | {row['profile']} | {row['seed']} | {row['steps']} | **{row['mean_dice']:.4f}** |")
    return lines


def show_steps(result: dict[str, Any]) -> str:
    ours, theirs = result["autoseg"], result["nnunet"]
    gradients = max(error["same_slopes"] for error in result["gradients"].values())
    seconds = " and ".join(f"{one['seconds']:.2f}" for one in theirs)
    return (
        f"- Steps (`benchmarks/training_steps.py`), nnU-Net's plan of the hippocampus, batch {ours['batch']}, both in float32: "
        f"**{result['speed_up']:.2f}** times nnU-Net's steps per second ({ours['seconds']:.2f} s a step against {seconds} s before and "
        f"after). This CPU has no bf16, and convolutions alone take most of both. Gradient against float64: {gradients:.0e}."
    )


def show_augmentation(result: dict[str, Any]) -> str:
    ratios = ", ".join(f"**{value:.1f}** times {name}" for name, value in result["speed_up_by_means"].items())
    each = result["seconds_per_sample_mean"]["autoseg"]
    return (
        f"- Augmentation (`benchmarks/augmentation.py`), the same recipe and orders, one core, {result['samples']} samples: {ratios} "
        f"({each * 1e3:.1f} ms a sample of {'x'.join(map(str, result['patch']))})."
    )


def show_kill(result: dict[str, Any]) -> str:
    equal = "bit-equal" if result["bit_equal"] else "NOT equal"
    return (
        f"- Kills (`benchmarks/kill.py`): after {result['kills']} kills -9 at random moments the weights are {equal} to those of a "
        f"training that was not killed; stray files: {len(result['strays'])}."
    )


def show_memory(result: dict[str, Any]) -> str:
    most = max(result["loading"], key=lambda row: row["peak_growth_bytes"])
    return (
        f"- Memory (`benchmarks/loading_memory.py`): reading and augmenting two patches of 128³ a batch from a store of {most['cases']} "
        f"scans takes {most['peak_growth_bytes'] / 1e6:.0f} MB at its peak ({most['threads']} threads); a training's resident memory at "
        f"step 1000 is {result['training']['growth']:+.1%} of that at step 100."
    )


ENGINE = {"training_steps": show_steps, "augmentation": show_augmentation, "kill": show_kill, "loading_memory": show_memory}


def make_engine() -> list[str]:
    lines = [show(load(name)["results"]) for name, show in ENGINE.items() if (RESULTS / f"{name}.json").is_file()]
    if not (RESULTS / "gpu.json").is_file():
        lines.append("- On a GPU nothing has been measured yet; `benchmarks/gpu.py` does it all in one go.")
    return ["**The training engine**:", "", *lines, *(make_minutes() if (RESULTS / "training_minutes.json").is_file() else [])]


def make_minutes() -> list[str]:
    rows = load("training_minutes")["results"]
    lines = [
        "",
        "Hippocampus fold 0 in the same minutes (`benchmarks/training_minutes.py`); nnU-Net's schedule is fitted to the time, too:",
        "",
    ]
    lines += ["| | minutes (taken) | cores | seed | steps | mean Dice | by class |", "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["minutes"], row["tool"], row["seed"])):
        classes = ", ".join(f"{value:.3f}" for value in row["dice"].values())
        places = f"{row['minutes']:g} ({row['training_minutes']:.1f}) | {row['cores']} | {row['seed']} | {row['steps']}"
        lines.append(f"| {row['tool']} | {places} | **{row['mean_dice']:.4f}** | {classes} |")
    return lines


NAMES = {
    "instance_2d": "Mask R-CNN (`instance_2d`)",
    "boundary_2d": "boundary network (`boundary_2d`)",
    "chosen": "chosen by `autoseg select`",
    "chosen_tta": "the same, mirrored too (`predict --tta`)",
    "stardist": "StarDist, from scratch",
}


def make_instances() -> list[str]:
    """Objects told apart: real nuclei beside a peer, made-up objects, and speed; what has not been measured is left out."""
    makers = {
        "nuclei": make_nuclei,
        "made_objects": make_made_objects,
        "detection_speed": make_detection_speed,
        "prediction_speed": make_prediction_speed,
    }
    parts = [make() for name, make in makers.items() if (RESULTS / f"{name}.json").is_file()]
    return ["**Objects told apart**:", "", *(line for part in parts for line in part)] if parts else []


def make_nuclei() -> list[str]:
    rows = sorted(load("nuclei")["results"], key=lambda row: (row["minutes"], list(NAMES).index(row["what"]), row["seed"]))
    lines = [
        "Nuclei (`benchmarks/nuclei.py`), fold 0, unseen images, near-duplicates kept in one fold; "
        "AP_cell = TP / (TP + FP + FN) at an IoU of .5 / mean over .5 … .95, scored by the same code; "
        "StarDist is for fluorescence and learned from those images alone:",
        "",
        "| | minutes (taken) | cores | steps x batch | all | fluorescence | other | F1@.5 | PQ | AJI |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = " | ".join(show_group(row.get(group)) for group in ("all", "fluorescence", "other"))
        best = row.get("all") or row["fluorescence"]
        others = " | ".join(f"{best[metric]:.3f}" for metric in ("f1_50", "pq", "aji"))
        cores = " + ".join(str(own["cores"]) for own in rows if own["what"] in row.get("configurations", (row["what"],)))
        length = f"{row['minutes']:g} ({row['minutes_taken']:.0f}) | {cores} | {row['steps']} x {row['batch']}"
        members = f": {' + '.join(row['configurations'])}" if row["what"] == "chosen" else ""
        lines.append(f"| {NAMES[row['what']]}{members} | {length} | {shares} | {others} |")
    known = next((row for row in rows if "all" in row), rows[0])
    counts = ", ".join(f"{known[group]['images']} {group}" for group in ("all", "fluorescence", "other") if group in known)
    return [
        *lines,
        "",
        f"Images: {counts}; F1, PQ and AJI over the first of these columns that has a value. One seed each. "
        "Our thresholds are chosen on 40 of these images, and some numbers of the profile were chosen by trainings on "
        "this fold, which flatters ours. "
        f"{show_machines(rows)}",
        "",
    ]


def show_machines(rows: list[dict[str, Any]]) -> str:
    """Where each row was measured, told once for all rows of a place."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(format_machine(row["machine"]), []).append(NAMES[row["what"]])
    if len(places) == 1:
        return f"Machine: {next(iter(places))}."
    return " ".join(f"Machine of {', '.join(names)}: {place}." for place, names in places.items())


def show_group(scores: dict[str, float] | None) -> str:
    return f"**{scores['ap_cell_50']:.3f}** / {scores['ap_cell_50_95']:.3f}" if scores else ""


def make_made_objects() -> list[str]:
    titles = {"discs": "discs of radius 4 to 20 in images of 256²", "spheres": "touching balls in volumes of 64x128x128, voxels 3:1"}
    lines = []
    for row in load("made_objects")["results"]:
        text = (
            f"- Made-up {titles[row['what']]}, {row['minutes']:g} minutes: AP_cell@.5 **{row['scores']['ap_cell_50']:.3f}** on unseen ones"
        )
        crowd = f"; of a crowd of discs in 512² it finds {row['crowd']['recall_50']:.1%}" if "crowd" in row else ""
        lines.append(f"{text}{crowd} (`benchmarks/made_objects.py`).")
    return lines


def make_detection_speed() -> list[str]:
    result = load("detection_speed")["results"]
    heaps, aligned = result["nms_1000"]["heaps"], result["roi_align_512x7x7x256"]["forward"]
    return [
        f"- Operators (`benchmarks/detection_speed.py`), {result['threads']} threads, medians: "
        f"NMS of 1,000 boxes {heaps['median_ms']:.1f} ms, RoIAlign of 512 boxes 7x7x256 {aligned['median_ms']:.1f} ms."
    ]


def make_prediction_speed() -> list[str]:
    result = load("prediction_speed")["results"]
    times = " and ".join(f"**{one['median_s']:.2f} s** with {one['objects']} objects" for one in (result["hundred"], result["crowd"]))
    return [f"- `model.predict` (`benchmarks/prediction_speed.py`), {result['threads']} threads, an image of 512², medians of 5: {times}."]


def make_verdict() -> list[str]:
    """The whole way by one command, and the metrics beside their peers."""
    parts = [
        make() for name, make in {"whole_run": make_whole_run, "metrics": make_metrics}.items() if (RESULTS / f"{name}.json").is_file()
    ]
    return ["**From folds to a verdict**:", *(line for part in parts for line in ("", *part))] if parts else []


def make_whole_run() -> list[str]:
    result = load("whole_run")["results"]
    low, high = result["interval"]
    chosen = " + ".join(result["chosen"]["configurations"])
    rules = ", ".join(f"{rule['kind']} of {rule['class_name'] or 'all'}".replace("_", " ") for rule in result["chosen"]["rules"]) or "none"
    left = "; ".join(f"{one['configuration']}: {one['reason']}" for one in result["left_out"]) or "nothing"
    killed = f"killed with SIGKILL {len(result['killed_after_minutes'])} times and typed again"
    length = f"{result['trainings']} folds of {result['minutes_per_training']:.1f} minutes, {result['minutes_in_all']:.0f} minutes in all"
    folds = ", ".join(f"{value:.4f}" for value in result["folds"])
    difference = abs(result["mean_dice"] - result["mean_dice_from_files"])
    return [
        f"`autoseg run` on the hippocampus (`benchmarks/whole_run.py`), --hours {result['hours']:g}, {killed}: {length}; Dice over "
        f"{result['cases']} cases, each by the fold that has not seen it:",
        "",
        "| | mean Dice | 95 % interval | by fold |",
        "|---|---|---|---|",
        f"| all classes | **{result['mean_dice']:.4f}** | {low:.4f} to {high:.4f} | {folds} |",
        *(f"| {name} | {own['mean']:.4f} | {own['low']:.4f} to {own['high']:.4f} | |" for name, own in result["dice"].items()),
        "",
        f"Chosen: {chosen}; post-processing: {rules}; left out: {left}. Computed a second time from the files alone the mean differs by "
        f"{difference:.0e}. Machine: {describe('whole_run')}.",
    ]


def make_metrics() -> list[str]:
    lines = []
    for name in ("metrics", "metrics_large"):
        if not (RESULTS / f"{name}.json").is_file():
            continue
        rows = load(name)["results"]
        size = "x".join(map(str, rows[0]["shape"]))
        own = {row["maps"]: statistics.median(row["seconds"]) for row in rows if row["what"] == "autoseg"}
        times = ", ".join(
            f"**{row['times_faster']:g}** times {row['what']} ({row['maps']} masks)" for row in rows if row["what"] != "autoseg"
        )
        cores, count = rows[0]["cores"], len(rows[0]["seconds"])
        ours = ", ".join(f"{seconds:.2f} s {maps}" for maps, seconds in own.items())
        lines.append(
            f"- Dice, HD95, ASSD and NSD of 13 labels at {size} (`benchmarks/metrics.py`), cores for each: {cores}, medians of {count}: "
            f"{times}; ours {ours}. Machine: {describe(name)}."
        )
    return lines


def main() -> None:
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    sections = (make_hippocampus(), make_verdict(), make_others(), make_instances(), make_planner(), make_engine())
    figures = "\n".join([BEGIN, "", *(line for lines in sections if lines for line in (*lines, "")), END])
    README.write_text(before + figures + after)


if __name__ == "__main__":
    main()
