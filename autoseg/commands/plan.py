"""`autoseg plan`: a folder of scans becomes a run with all decisions made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from autoseg.commands.folds import Alike, check_request, group_alike, list_alike, settle_folds, warn_of_folds
from autoseg.commands.measure import describe_dataset, make_case_fingerprint, measure, report_geometry, report_objects
from autoseg.errors import InputError
from autoseg.io.classes import describe_regions
from autoseg.io.discovery import Discovery, Problem, discover
from autoseg.io.files import load_record, name_full_disk, remove_partials, save_record, write_bytes
from autoseg.io.machine import count_cores, measure_machine
from autoseg.io.nnunet import read_nnunet_folder
from autoseg.io.nnunet_plan import format_nnunet_plan
from autoseg.io.profiles import read_profile
from autoseg.io.run_folder import RunFolder
from autoseg.io.tables import make_absolute
from autoseg.io.tasks import settle_task
from autoseg.planning.budget import format_shape
from autoseg.planning.detection import list_strides
from autoseg.planning.normalization import pool_foreground
from autoseg.planning.plan import Request, make_plan
from autoseg.progress import Progress, Silent
from autoseg.records.dataset import Dataset
from autoseg.records.fingerprint import Fingerprint
from autoseg.records.machine import Machine
from autoseg.records.plan import Configuration, Plan
from autoseg.records.profile import Profile
from autoseg.records.request import PlanRequest


@dataclass(frozen=True)
class PlanOptions:
    """What may be asked of a plan; every field has a flag of the same name."""

    task: str = ""
    profile: str = ""
    memory: int | None = None
    minutes: float | None = None
    device: str = "auto"
    images: dict[str, str] | None = None
    labels: str | None = None
    classes: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    groups: str | None = None
    splits: Path | None = None
    exclude: tuple[str, ...] = ()
    stratify: str | None = None
    folds: int | None = None
    format: Literal["autoseg", "nnunet"] = "autoseg"
    workers: int | None = None


def plan(dataset: str | Path, run: str | Path, options: PlanOptions = PlanOptions(), progress: Progress = Silent()) -> Plan:
    """Finds the cases below `dataset`, measures them, decides everything, and writes the run folder.

    A folder with nnU-Net's own fingerprint and no scans is planned from that alone. Raises InputError that lists every problem found;
    nothing is written then.
    """
    folder = RunFolder(Path(run))
    _refuse_other_run(folder, Path(dataset))
    asked = _write_request(options)
    check_request(asked)
    imported = read_nnunet_folder(Path(dataset))
    machine = measure_machine(options.device, options.memory)
    profile = _choose_profile(options.profile, machine)
    if profile.budget == "operations" and imported is None:
        machine = _measure_rate(folder, machine, options)
    scans = (*imported, []) if imported else _measure_scans(Path(dataset), options, profile.orientation, progress)
    description, fingerprint, alike = scans
    if options.format == "nnunet" and description.task == "instance":
        raise InputError("nnU-Net has no instance tasks, so there is no plan to write for it.", todo="Leave --format nnunet out.")
    as_nnunet = profile.name.startswith("nnunet") and description.task == "semantic"
    if not (options.groups or options.splits or as_nnunet):
        description = group_alike(description, alike, progress)
    splits = settle_folds(description, fingerprint, asked, as_nnunet, progress)
    warn_of_folds(splits, description, alike, progress)
    made = make_plan(description, fingerprint, profile, machine, Request(options.minutes, options.spacing, options.memory))
    measured = {folder.dataset: description, folder.fingerprint: fingerprint, folder.machine: machine}
    folder.path.mkdir(parents=True, exist_ok=True)
    remove_partials(folder.path)
    with name_full_disk(folder.path):
        for path, record in {**measured, folder.request: asked, folder.splits: splits, folder.plan: made}.items():
            save_record(path, record)  # the plan last: it makes the folder a run
        if options.format == "nnunet":
            intensities = tuple(pool_foreground(fingerprint, channel) for channel in range(len(description.channels)))
            write_bytes(folder.nnunet_plan, format_nnunet_plan(description, fingerprint, made, intensities))
    return made


def _write_request(options: PlanOptions) -> PlanRequest:
    return PlanRequest(
        profile=str(Path(options.profile).resolve()) if options.profile.endswith(".json") else options.profile,
        minutes=options.minutes,
        spacing=options.spacing,
        memory=options.memory,
        groups=make_absolute(options.groups or ""),
        stratify=make_absolute(options.stratify or ""),
        splits=str(options.splits.resolve()) if options.splits else "",
        folds=options.folds or 0,
        exclude=tuple(sorted(set(options.exclude))),
    )


def _measure_rate(folder: RunFolder, machine: Machine, options: PlanOptions) -> Machine:
    """The machine with the rate at which it trains: as the run knows it already, else measured by a few steps in a process of their own."""
    if folder.machine.is_file():
        known = load_record(Machine, folder.machine)
        if known.flops_source == "measured" and (known.device, known.name, known.cores) == (machine.device, machine.name, machine.cores):
            return msgspec.structs.replace(machine, flops=known.flops, flops_source="measured")
    return measure_machine(options.device, options.memory, measure_rate=True)


def _choose_profile(name: str, machine: Machine) -> Profile:
    """The profile asked for, or the machine's. `autoseg` has a form of its own for CPUs."""
    if name in ("", "autoseg"):
        name = "autoseg-cpu" if machine.device == "cpu" else "autoseg"
    profile = read_profile(name)
    if profile.budget == "operations" and not machine.flops:
        raise InputError(f"Profile '{profile.name}' is for a CPU, but the plan is for {machine.name}.", todo="Leave --profile out.")
    return profile


def _measure_scans(path: Path, options: PlanOptions, orientation: str, progress: Progress) -> tuple[Dataset, Fingerprint, Alike]:
    found = discover(path, options.images, options.labels, options.groups, options.exclude)
    discovery, names = settle_task(found, options.task, options.classes)
    _show_pairs(discovery, progress)
    measurements, problems = measure(discovery, orientation, options.workers or count_cores(), progress)
    description, more = describe_dataset(discovery, measurements, names)
    problems = [*discovery.problems, *problems, *more]
    if problems or description is None:
        raise list_problems(problems, len(discovery.cases))
    report_geometry(measurements, progress)
    report_objects(measurements, progress)
    if description.regions:
        progress.say(f"The classes {describe_regions(description.classes)}.", event="regions")
    fingerprint = Fingerprint(cases=tuple(make_case_fingerprint(m, description) for m in measurements))
    return description, fingerprint, list_alike(measurements)


def format_plan(plan: Plan, run: str) -> str:
    """The decisions of the default configuration as a table with their reasons, the others in a line, and what to type next."""
    lines = [f"Plan for {plan.machine.name} ({plan.machine.cores} cores), profile {plan.profile}"]
    for configuration in sorted(plan.configurations, key=lambda c: c.name != plan.default_configuration):
        facts = _list_facts(configuration)
        if configuration.name != plan.default_configuration:
            lines.append(f"Also planned: {configuration.name}, patch {facts['patch_size']}, batch {configuration.batch_size}")
            continue
        lines.append(f"{configuration.name}: {plan.default_reason}")
        width = max(len(value) for value in facts.values())
        lines += [f"  {name:<13} {value:<{width}}  {configuration.reasons.get(name, '')}" for name, value in facts.items()]
    default = next(c for c in plan.configurations if c.name == plan.default_configuration)
    lines.append(f"Expect per fold: {describe_expectation(default)}")
    lines.append(f"Why: autoseg plan {run} --explain")
    lines.append(f"Next: autoseg train {run} --fold 0")
    return "\n".join(lines)


def _list_facts(configuration: Configuration) -> dict[str, str]:
    schedule, memory = configuration.schedule, configuration.memory
    facts = {
        "spacing": "x".join(f"{step:.3g}" for step in configuration.spacing),
        "patch_size": format_shape(configuration.patch_size),
        "batch_size": str(configuration.batch_size),
        "normalization": ", ".join(n.scheme for n in configuration.normalization),
        "network": f"{len(configuration.network.strides)} stages",
        "features": f"{configuration.network.features[0]} to {configuration.network.features[-1]}",
        "loss": configuration.loss.name,
        "optimizer": configuration.optimizer.name,
        "schedule": f"{schedule.minutes:g} min" if schedule.minutes else f"{schedule.epochs} epochs",
        "mirror_axes": ", ".join(map(str, configuration.mirror_axes)) or "none",
        "memory": f"{memory.training_bytes / 1e9:.2f} GB",
    }
    return facts | _list_object_facts(configuration)


def _list_object_facts(configuration: Configuration) -> dict[str, str]:
    """Of an instance task's configurations: how objects are found and taken apart."""
    detection, thresholds = configuration.detection, configuration.thresholds
    facts = {}
    if detection is not None:
        strides = list_strides(configuration.network.strides)
        facts["levels"] = "strides " + ", ".join(format_shape(strides[level]) for level in detection.levels)
        facts["anchors"] = f"{len(detection.anchors[0])} on each level"
        facts["detections"] = f"{detection.detections} a tile"
        facts["mask_bins"] = format_shape(tuple(edge * 2**detection.mask_upsampling for edge in detection.mask_bins))
    if thresholds is not None:
        facts["thresholds"] = f"score {thresholds.score:g}, nms {thresholds.nms:g} by {'mask' if thresholds.by_mask else 'box'}"
    return facts


def describe_expectation(configuration: Configuration) -> str:
    """What training one fold will take: time, memory, disk."""
    schedule, memory = configuration.schedule, configuration.memory
    steps = schedule.epochs * configuration.steps_per_epoch
    if schedule.minutes:
        time = f"{schedule.minutes:g} minutes of training"
        if configuration.seconds_per_step:
            time += f", about {schedule.minutes * 60 / configuration.seconds_per_step:.0f} steps of {configuration.seconds_per_step:.2g} s"
    elif configuration.seconds_per_step:
        time = f"{steps} steps of about {configuration.seconds_per_step:.2g} s, {steps * configuration.seconds_per_step / 3600:.1f} hours"
    else:
        time = f"{steps} steps (train times them before it begins)"
    disk = f"{memory.prepared_bytes / 1e9:.2g} GB of disk at most for the prepared scans of all folds"
    return f"{time}; {memory.training_bytes / 1e9:.2g} GB of memory; {disk}"


def _refuse_other_run(folder: RunFolder, dataset: Path) -> None:
    """A run that has models of another data set is not planned over."""
    if not folder.dataset.is_file() or not any((folder.path / "models").glob("*/fold_*")):
        return
    planned = Path(folder.load_dataset().root)
    if planned != dataset.resolve():
        raise InputError(f"{folder.path} holds models trained on {planned}.", todo="Give another folder with -o.")


def _show_pairs(discovery: Discovery, progress: Progress) -> None:
    lines = [f"{len(discovery.cases)} pairs of image and label in {discovery.root} (layout: {discovery.layout})"]
    for case in discovery.cases[:5]:
        lines.append(f"  {case.id}:  {' + '.join(dict.fromkeys(case.images))}  ↔  {case.label}")
    if len(discovery.cases) > 5:
        lines.append(f"  … and {len(discovery.cases) - 5} more")
    progress.say("\n".join(lines), event="pairs", count=len(discovery.cases), layout=discovery.layout)
    if discovery.task == "instance":
        progress.say(f"Task: instance ({discovery.shown}): every object is found by itself.", event="task", task="instance")
    elif not discovery.shown:
        progress.say("Task: semantic, a class for every voxel; --task instance takes every object apart.", event="task", task="semantic")
    for note in discovery.notes:
        progress.warn(note)


def list_problems(problems: list[Problem], count: int) -> InputError:
    width = max((len(problem.case) for problem in problems), default=0)
    cases = sorted({problem.case for problem in problems if problem.case != "all cases"})
    table = "\n".join(f"{problem.case:<{width}}  {problem.text}" for problem in sorted(problems, key=lambda p: p.case))
    todo = "Correct the files and repeat the command"
    if cases:
        todo += f", or go on without them:\n--exclude {','.join(cases)}"
    return InputError(f"{len(problems)} problems in {count} cases:\n{table}", todo=todo)
