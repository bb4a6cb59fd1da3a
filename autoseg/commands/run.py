"""`autoseg run`: the whole way with one command, from a folder of scans to a choice and its scores."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import msgspec
import numpy as np

from autoseg.commands.evaluate import format_scores
from autoseg.commands.evaluate_objects import format_object_scores
from autoseg.commands.job import TrainOptions
from autoseg.commands.plan import PlanOptions, describe_expectation, format_plan, plan
from autoseg.commands.select import select
from autoseg.commands.spread import choose_gpus
from autoseg.commands.train import train
from autoseg.errors import AutosegError, CasesFailed, Diverged, InputError, Interrupted, OutOfMemory
from autoseg.evaluation.summary import compute_interval
from autoseg.io.files import load_record, name_full_disk, save_record
from autoseg.io.run_folder import RunFolder, choose_configuration
from autoseg.networks.devices import choose_device
from autoseg.planning.agenda import make_agenda, share_minutes
from autoseg.planning.splits import FOLDS
from autoseg.progress import Progress, Silent
from autoseg.records.agenda import Agenda
from autoseg.records.choice import Choice
from autoseg.records.scores import InstanceScores, Scores, decode_scores
from autoseg.records.training import TrainingStatus
from autoseg.training.signals import listen_to_signals

ANY_TIME = ("device", "workers", "minutes")  # of a plan's options: what a repetition may change, and what `--hours` decides


@dataclass(frozen=True)
class RunOptions:
    """What may be asked of a whole run: `minutes` for everything, and how it is planned and trained.

    Of the options of training device, steps, precision, seed, workers and gpus are used.
    """

    minutes: float | None = None
    plan: PlanOptions = PlanOptions()
    train: TrainOptions = TrainOptions()


def run(dataset: str | Path, output: str | Path, options: RunOptions = RunOptions(), progress: Progress = Silent()) -> Choice:
    """Plans, trains all folds of all configurations (or those that fit the time), selects and scores; `output` is the run folder.

    Repeated, it goes on where it was stopped, with the same trainings of the same length. Raises InputError for flags other than those it
    was begun with, CasesFailed (3) that names trainings which failed, after the others are done and the selection is made among them,
    and Interrupted (75) on SIGINT, SIGTERM or SIGUSR1.
    """
    folder = RunFolder(Path(output))
    with listen_to_signals():
        try:
            agenda = take_up_agenda(Path(dataset), folder, options, progress)
            failed = _train_all(folder, agenda, options.train, progress)
            _refuse_empty(folder, agenda, failed)
            choice = select(folder.path, progress, options.train.workers)
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped by a signal.", done="All that was finished is kept.", todo="Type the same command again: it goes on from here."
            ) from None
    _tell_result(folder, choice, progress)
    if failed:
        raise CasesFailed(
            f"{len(failed)} of {len(agenda.trainings)} trainings failed:\n" + "\n".join(failed),
            done="The others are finished; the choice was made among them.",
            todo="Type the same command again: what is finished is left as it is.",
        )
    return choice


def take_up_agenda(dataset: Path, folder: RunFolder, options: RunOptions, progress: Progress) -> Agenda:
    """The agenda that was begun, or a new one, after planning where there is no plan."""
    asked = list_asked(options)
    if folder.agenda.is_file():
        agenda = load_record(Agenda, folder.agenda)
        _refuse_other_scans(folder, dataset)
        _refuse_other_flags(folder, agenda, asked)
        progress.say(f"Going on with {folder.path}: {_describe(agenda, folder)}", event="agenda", trainings=len(agenda.trainings))
        return agenda
    for_plan = [name for name in asked if name in _list_plan_flags()]
    if folder.plan.is_file():
        _refuse_other_scans(folder, dataset)
        _refuse_planned(folder, for_plan)
    folds = options.plan.folds or FOLDS
    at_once = max(1, len(choose_gpus(options.train, choose_device(options.train.device), folds)))
    if not folder.plan.is_file() or for_plan:
        share = share_minutes(options.minutes, math.ceil(folds / at_once)) if options.minutes else None
        made = plan(dataset, folder.path, replace(options.plan, minutes=share), progress)
        progress.say(format_plan(made, str(folder.path)).rpartition("\nNext:")[0], event="plan", default=made.default_configuration)
    agenda = make_agenda(folder.load_plan(), len(folder.load_splits().folds), options.minutes, at_once)
    train_options = options.train
    agenda = msgspec.structs.replace(
        agenda, steps=train_options.steps, precision=train_options.precision, seed=train_options.seed, asked=asked
    )
    with name_full_disk(folder.path):
        save_record(folder.agenda, agenda)
    progress.say(f"{folder.path}: {_describe(agenda, folder)}", event="agenda", trainings=len(agenda.trainings))
    for left in agenda.left_out:
        progress.say(f"Left out: {left.configuration} (fold {', '.join(map(str, left.folds))}): {left.reason}", event="left_out")
    return agenda


def list_asked(options: RunOptions) -> dict[str, str]:
    """The flags that decide what is planned and trained, as text; those left at their defaults are not there.

    >>> list_asked(RunOptions(45, PlanOptions(classes=("body", "head")), TrainOptions(seed=3)))
    {'classes': 'body,head', 'hours': '0.75', 'seed': '3'}
    """
    plain, asked = PlanOptions(), {}
    for name in _list_plan_flags():
        value = getattr(options.plan, name)
        if value != getattr(plain, name):
            asked[name] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if options.minutes is not None:
        asked["hours"] = f"{options.minutes / 60:g}"
    training = {name: getattr(options.train, name) for name in ("steps", "precision", "seed")}
    return asked | {name: str(value) for name, value in training.items() if value != getattr(TrainOptions(), name)}


def _list_plan_flags() -> list[str]:
    return [each.name for each in fields(PlanOptions) if each.name not in ANY_TIME]


def _refuse_other_scans(folder: RunFolder, dataset: Path) -> None:
    planned = Path(folder.load_dataset().root)
    if planned.resolve() != dataset.resolve():
        raise InputError(f"{folder.path} is a run of {planned}, not of {dataset}.", todo="Give another folder with -o.")


def _refuse_other_flags(folder: RunFolder, agenda: Agenda, asked: dict[str, str]) -> None:
    other = {name: value for name, value in asked.items() if agenda.asked.get(name) != value}
    if not other:
        return
    lines = [f"--{name} {value}, but was begun with {agenda.asked.get(name, 'no such flag')}" for name, value in other.items()]
    raise InputError(
        f"{folder.path} cannot go on with " + "; ".join(lines) + ".",
        "The trainings of a run and their length are fixed before the first of them (agenda.json).",
        todo="Leave the flag out to go on, or give another folder with -o.\n"
        f"Deleting {folder.agenda} makes another agenda; finished trainings stay as they are.",
    )


def _refuse_planned(folder: RunFolder, flags: list[str]) -> None:
    """A plan is made anew for other flags only where nothing of it would be lost."""
    changed = any(configuration.user_set for configuration in folder.load_plan().configurations)
    begun = any((folder.path / "models").glob("*/fold_*"))
    if flags and (changed or begun):
        why = "trainings of it were begun" if begun else "values of its plan were set by hand"
        raise InputError(
            f"{folder.path} is planned already, and {why}: --{flags[0]} would come too late.",
            todo="Leave the flag out to go on with that plan, or give another folder with -o.",
        )


def _describe(agenda: Agenda, folder: RunFolder) -> str:
    """How many trainings, how long each, and what that makes together."""
    names = list(dict.fromkeys(training.configuration for training in agenda.trainings))
    counts = ", ".join(f"{name} {sum(each.configuration == name for each in agenda.trainings)}" for name in names)
    first = choose_configuration(folder.load_plan(), names[0])
    minutes = agenda.minutes if agenda.minutes is not None else first.schedule.minutes
    if agenda.steps is not None:
        length = f"{agenda.steps} steps each"
    elif minutes:
        length = f"{minutes:.3g} minutes each, {format_hours(minutes * len(agenda.trainings) / 60)} of training"
        length += f" in the {format_hours(agenda.hours)} that were given" if agenda.hours is not None else " (--hours H sets a limit)"
    else:
        length = "each by the plan's schedule: " + describe_expectation(first).split(";")[0]
    return f"{len(agenda.trainings)} trainings ({counts} folds), {length}; then selection."


def format_hours(hours: float) -> str:
    """A length of time in words, in minutes where it is short.

    >>> format_hours(0.675), format_hours(5.55)
    ('40.5 minutes', '5.55 hours')
    """
    return f"{hours:.3g} hours" if hours >= 1 else f"{hours * 60:.3g} minutes"


def _train_all(folder: RunFolder, agenda: Agenda, options: TrainOptions, progress: Progress) -> list[str]:
    """Every training that is not finished, in order; returns a line for each that failed."""
    asked = replace(options, minutes=agenda.minutes, steps=agenda.steps, precision=agenda.precision, seed=agenda.seed)
    count, failed = len(agenda.trainings), []
    for name, fold in _gather(folder, agenda, asked):
        done = sum(is_finished(folder, each.configuration, each.fold) for each in agenda.trainings)
        begin = f"Training, {done} of {count} finished"
        progress.say(f"{begin}: {name}, fold {fold}", event="training", configuration=name, fold=fold)
        try:
            train(folder.path, fold, name, asked, progress)
        except (Diverged, OutOfMemory, CasesFailed) as error:
            failed.append(f"{name}, fold {fold}: {_shorten(error)}")
            progress.warn(f"{name}, fold {fold} failed, the others go on: {_shorten(error)}", event="training_failed", fold=fold)
    return failed


def is_finished(folder: RunFolder, configuration: str, fold: int) -> bool:
    """Whether a fold has its model and its score."""
    own = folder.fold(configuration, fold)
    return own.is_finished() and own.status.is_file() and load_record(TrainingStatus, own.status).state == "finished"


def _gather(folder: RunFolder, agenda: Agenda, options: TrainOptions) -> list[tuple[str, int | str]]:
    """What is not finished, one by one; "all" of a configuration whose folds are spread over several GPUs."""
    waiting = [(each.configuration, each.fold) for each in agenda.trainings if not is_finished(folder, each.configuration, each.fold)]
    count = len(folder.load_splits().folds)
    if agenda.trainings[-1].fold < count - 1 or not choose_gpus(options, choose_device(options.device), count):
        return list(waiting)
    return [(name, "all") for name in dict.fromkeys(name for name, _ in waiting)]


def _shorten(error: AutosegError) -> str:
    return " ".join(part for part in (error.what, error.why) if part)


def _refuse_empty(folder: RunFolder, agenda: Agenda, failed: list[str]) -> None:
    if not any(is_finished(folder, each.configuration, each.fold) for each in agenda.trainings):
        raise CasesFailed(
            f"All {len(agenda.trainings)} trainings failed, so there is nothing to select:\n" + "\n".join(failed),
            todo="Correct what is named and type the same command again.",
        )


def _tell_result(folder: RunFolder, choice: Choice, progress: Progress) -> None:
    """The table of scores, the mean over cases with its interval, and what to type next."""
    scores = decode_scores(folder.scores.read_bytes(), str(folder.scores))
    title = f"{' + '.join(choice.configurations)}, {choice.cases} cases, each by a model that has not seen it"
    table = format_object_scores(scores, title) if isinstance(scores, InstanceScores) else format_scores(scores, title)
    progress.say(table, event="scores", mean=scores.mean)
    mean = describe_mean(scores)
    rules = ", ".join(f"{rule.kind} of {rule.class_name or 'all classes'}" for rule in choice.rules) or "none"
    progress.say(
        f"Done: {' + '.join(choice.configurations)}, fold {', '.join(map(str, choice.folds))}; post-processing: {rules}; {mean}\n"
        f"Next: autoseg predict {folder.path} SCANS -o OUT",
        event="run",
        configurations=choice.configurations,
        folds=choice.folds,
    )


def describe_mean(scores: Scores | InstanceScores) -> str:
    """The mean over cases, of each case's mean over classes, with its bootstrap interval."""
    metric, title = ("ap_cell_50", "AP_cell@.5") if isinstance(scores, InstanceScores) else ("dice", "Dice")
    values: dict[str, list[float]] = {}
    for row in scores.cases:
        value = getattr(row, metric)
        if value is not None:
            values.setdefault(row.case, []).append(value)
    interval = compute_interval([float(np.mean(own)) for own in values.values()])
    if interval.mean is None:
        return f"mean {title} not defined"
    return f"mean {title} over {interval.n} cases {interval.mean:.4f} (95 % {interval.low:.4f} … {interval.high:.4f})"
