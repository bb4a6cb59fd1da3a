"""`autoseg status`: what is done in a run, what is going on, what is to come. Reads only, and without torch."""

import time
from pathlib import Path
from typing import Any

import msgspec

from autoseg.io.files import load_record
from autoseg.io.run_folder import FoldFolder, RunFolder, choose_configuration
from autoseg.records.agenda import Agenda, FoldState, FoldStateName, RunStatus, SelectionState
from autoseg.records.choice import Choice
from autoseg.records.plan import Configuration, Plan
from autoseg.records.training import TrainingSettings, TrainingStatus


def status(run: str | Path) -> RunStatus:
    """Where a run stands; also of one that no `autoseg run` was asked for. Writes nothing.

    Raises InputError for a folder that is no run, and names a record that cannot be read.
    """
    folder = RunFolder(Path(run))
    plan, dataset, splits = folder.load_plan(), folder.load_dataset(), folder.load_splits()
    agenda = load_record(Agenda, folder.agenda) if folder.agenda.is_file() else None
    on_agenda = [(training.configuration, training.fold) for training in agenda.trainings] if agenda else []
    planned = on_agenda or [(plan.default_configuration, fold) for fold in range(len(splits.folds))]
    names = [configuration.name for configuration in plan.configurations]
    begun = [(name, fold) for name in names for fold in range(len(splits.folds)) if folder.fold(name, fold).settings.is_file()]
    folds = tuple(
        _read_fold(folder.fold(name, fold), choose_configuration(plan, name), fold, agenda) for name, fold in dict.fromkeys(planned + begun)
    )
    selection = _judge_choice(folder)
    return RunStatus(
        run=str(run),
        cases=len(dataset.cases),
        metric="dice" if dataset.task == "semantic" else "ap_cell_50",
        agenda=agenda,
        folds=folds,
        minutes_left=_add_minutes([fold for fold in folds if (fold.configuration, fold.fold) in on_agenda]),
        selection=selection,
        next=_find_next(folder, plan, agenda, folds, selection),
    )


def _read_fold(folder: FoldFolder, configuration: Configuration, fold: int, agenda: Agenda | None) -> FoldState:
    holder = folder.find_holder()
    settings = load_record(TrainingSettings, folder.settings) if folder.settings.is_file() else None
    known = load_record(TrainingStatus, folder.status) if folder.status.is_file() else None
    steps = known.steps if known else settings.steps if settings else None
    return FoldState(
        configuration=configuration.name,
        fold=fold,
        state=_name_state(folder, known, settings is not None, holder is not None),
        step=known.step if known else 0,
        steps=steps,
        score=known.mean_dice if known and known.mean_dice is not None else known.mean_ap_cell_50 if known else None,
        minutes_left=_estimate_minutes(known, settings, configuration, agenda),
        holder=f"process {holder.pid} on {holder.host}" if holder else None,
        alarms=known.alarms if known else (),
        skipped=known.skipped if known else (),
    )


def _name_state(folder: FoldFolder, known: TrainingStatus | None, is_settled: bool, is_held: bool) -> FoldStateName:
    """What its status says; a fold at work in it without a living process was interrupted."""
    if known is None:
        return "starting" if is_held else "interrupted" if is_settled else "waiting"
    if known.state == "finished" and folder.is_finished():
        return "finished"
    if not is_held:
        return "interrupted"
    return "validating" if known.state == "validating" else "training"


def _estimate_minutes(
    known: TrainingStatus | None, settings: TrainingSettings | None, configuration: Configuration, agenda: Agenda | None
) -> float | None:
    """Training minutes up to the last step: by the pace so far, by that which was timed before step 1, or by what is planned."""
    if known is not None and settings is not None:
        pace = known.seconds / known.step if known.step else settings.seconds_per_step
        return max(0, known.steps - known.step) * pace / 60
    if settings is not None:
        return settings.steps * settings.seconds_per_step / 60
    minutes, steps = _plan_length(configuration, agenda)
    if minutes is not None:
        return minutes
    return steps * configuration.seconds_per_step / 60 if configuration.seconds_per_step else None


def _plan_length(configuration: Configuration, agenda: Agenda | None) -> tuple[float | None, int]:
    """Minutes of a training that was not begun, or where it goes by steps, their number."""
    schedule = configuration.schedule
    if agenda is not None and agenda.steps is not None:
        return None, agenda.steps
    minutes = agenda.minutes if agenda is not None and agenda.minutes is not None else schedule.minutes
    return minutes or None, schedule.epochs * configuration.steps_per_epoch


def _add_minutes(folds: list[FoldState]) -> float | None:
    minutes = [fold.minutes_left for fold in folds]
    known = [value for value in minutes if value is not None]
    return sum(known) if known and len(known) == len(minutes) else None


def _judge_choice(folder: RunFolder) -> SelectionState:
    """Whether the choice was made among the models that are there now."""
    if not folder.choice.is_file():
        return "not done"
    choice = load_record(Choice, folder.choice)
    for name, digests in choice.weights_digests.items():
        finished = folder.finished_folds(name)
        if tuple(folder.fold(name, fold).load_model().weights_digest for fold in finished) != digests:
            return "older than its models"
    return "done"


def _find_next(folder: RunFolder, plan: Plan, agenda: Agenda | None, folds: tuple[FoldState, ...], selection: SelectionState) -> str:
    """The command to type, or to wait for."""
    unfinished = [fold for fold in folds if fold.state != "finished"]
    running = [fold for fold in folds if fold.holder is not None]
    if running:
        return f"wait; autoseg stop {folder.path} brings what is being trained to its end early"
    if agenda is not None and (unfinished or selection != "done"):
        return f"autoseg run {folder.load_dataset().root} -o {folder.path}"
    if agenda is None and unfinished:
        first = unfinished[0]
        named = f" --configuration {first.configuration}" if first.configuration != plan.default_configuration else ""
        return f"autoseg train {folder.path} --fold {first.fold}{named}"
    return f"autoseg predict {folder.path} SCANS -o OUT" if selection == "done" else f"autoseg select {folder.path}"


def to_plain(found: RunStatus) -> dict[str, Any]:
    """The record as plain values, for machines."""
    return msgspec.to_builtins(found)


def format_status(found: RunStatus) -> str:
    """The table for the screen: a line per fold, then what the agenda holds, what deserves a look, and what to type next."""
    finished = sum(fold.state == "finished" for fold in found.folds)
    title = "Dice" if found.metric == "dice" else "AP_cell@.5"
    lines = [f"{found.run}: {found.cases} cases, {finished} of {len(found.folds)} trainings finished"]
    rows = [("configuration", "fold", "state", title, "minutes left"), *(_list_cells(fold) for fold in found.folds)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines += [
        f"  {name:<{widths[0]}}  {fold:>{widths[1]}}  {state:<{widths[2]}}  {score:>{widths[3]}}  {minutes:>{widths[4]}}"
        for name, fold, state, score, minutes in rows
    ]
    for fold in found.folds:
        named = f"{fold.configuration}, fold {fold.fold}"
        lines += [f"  {named}: {alarm}" for alarm in fold.alarms]
        if fold.skipped:
            lines.append(f"  {named}: steps with these cases were skipped, their loss was not finite: {', '.join(fold.skipped)}")
    if found.agenda is not None:
        lines += [
            f"Left out: {left.configuration} (fold {', '.join(map(str, left.folds))}): {left.reason}" for left in found.agenda.left_out
        ]
        lines.append(_describe_rest(found, finished))
    return "\n".join([*lines, f"Selection: {found.selection}", f"Next: {found.next}"])


def _list_cells(fold: FoldState) -> tuple[str, str, str, str, str]:
    state: str = fold.state
    if fold.steps is not None and fold.state in ("training", "interrupted"):
        state += f", step {fold.step} of {fold.steps}"
    if fold.holder:
        state += f" ({fold.holder})"
    score = f"{fold.score:.4f}" if fold.score is not None else ""
    left = "" if fold.state in ("finished", "validating") else f"{fold.minutes_left:.1f}" if fold.minutes_left is not None else "?"
    return fold.configuration, str(fold.fold), state, score, left


def _describe_rest(found: RunStatus, finished: int) -> str:
    """What the agenda still holds, and where it goes on at this moment, when its last step will be."""
    if finished == len(found.folds):
        return "Agenda: all trainings are finished."
    if found.minutes_left is None:
        return f"Agenda: {len(found.folds) - finished} trainings are left; how long they take is timed before their first steps."
    text = f"Agenda: {found.minutes_left:.0f} minutes of training are left"
    if any(fold.holder for fold in found.folds):
        text += f", until about {time.strftime('%H:%M', time.localtime(time.time() + found.minutes_left * 60))}"
    return text + "; preparing, validations of whole cases and the selection come on top."
