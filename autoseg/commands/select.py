"""`autoseg select`: which configuration, ensemble and post-processing a run predicts with, by its folds' validation cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from statistics import median
from typing import Any, Literal

import msgspec

from autoseg.commands.candidates import Candidates, find_masks, find_pairs, gather, load_manifest, load_rows
from autoseg.commands.evaluate import Labelling, ScoreTask, save_scores, score_pairs
from autoseg.commands.evaluate_objects import score_object_pairs
from autoseg.commands.postprocess import Trying, choose_rules, compute_dice
from autoseg.commands.verdict import judge_run
from autoseg.errors import CasesFailed, InputError, OutOfMemory
from autoseg.evaluation.selection import Comparison, ScoreTable, Verdict, choose_product, compute_mean, make_table
from autoseg.io.files import save_record
from autoseg.io.run_folder import RunFolder
from autoseg.progress import Progress, Silent
from autoseg.records.choice import Choice, Rule, Trial
from autoseg.records.dataset import Dataset
from autoseg.records.detection import Thresholds
from autoseg.records.scores import InstanceScores, Scores
from autoseg.records.training import ModelHeader

OBJECT_METRICS = ("ap_cell_50", "ap_cell_50_95")  # the first decides, the other between those that are about as good
TITLES = {"dice": "Dice", "ap_cell_50": "AP_cell@.5"}


@dataclass(frozen=True)
class Ensemble:
    """Two configurations whose probabilities are averaged: case → mask, and case → class → what is chosen by (objects: by its mean too)."""

    configurations: tuple[str, ...]
    masks: Mapping[str, Path]
    table: ScoreTable
    finer: ScoreTable = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What was chosen, what was tried for it, and how good it is."""

    metric: Literal["dice", "ap_cell_50"]
    configurations: tuple[str, ...]
    trials: tuple[Trial, ...]
    scores: Scores | InstanceScores
    rules: tuple[Rule, ...] = ()
    thresholds: dict[str, Thresholds] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def select(run: str | Path, progress: Progress = Silent(), workers: int | None = None, configurations: Sequence[str] = ()) -> Choice:
    """Chooses what `predict` uses, on cases that their fold's model has not seen; writes choice.json, scores.json and scores.csv.

    Considered are `configurations`, else all with the most finished folds, and their ensembles of two. Raises InputError where no fold is
    finished, or one of the configurations asked for lacks folds.
    """
    candidates = gather(RunFolder(Path(run)), configurations)
    folds = ", ".join(map(str, candidates.folds))
    progress.say(f"Choosing among {', '.join(candidates.names)} on {len(candidates.cases)} validation cases of folds {folds}.")
    decide = _decide_objects if candidates.dataset.task == "instance" else _decide_classes
    decision = decide(candidates, workers, progress)
    headers = {name: _load_headers(candidates, name) for name in decision.configurations}
    choice = Choice(
        metric=decision.metric,
        configurations=decision.configurations,
        folds=candidates.folds,
        rules=decision.rules,
        thresholds=decision.thresholds,
        weights_digests={name: tuple(header.weights_digest for header in own) for name, own in headers.items()},
        cases=len(candidates.cases),
        trials=decision.trials,
        notes=(*candidates.notes, *decision.notes),
    )
    scores = msgspec.structs.replace(decision.scores, folds=_average_folds(candidates, decision))
    save_scores(scores, candidates.run.scores)
    save_record(candidates.run.choice, choice)  # last: whoever finds it, finds its scores
    progress.say(format_choice(choice, scores), event="choice", configurations=choice.configurations, mean=scores.mean)
    judge_run(candidates.run, scores, progress)
    progress.say(f"Choice: {candidates.run.choice}, scores: {candidates.run.scores}\nNext: autoseg predict {run} SCANS -o OUT")
    return choice


def _decide_classes(candidates: Candidates, workers: int | None, progress: Progress) -> Decision:
    """By Dice: the configuration or ensemble, then the rules for its masks."""
    dataset = candidates.dataset
    labelling = Labelling(dataset.classes, dataset.background_value, dataset.ignore_value, dataset.unit)
    singles = {name: make_table(load_rows(candidates, name), "dice") for name in candidates.names}
    ensembles: dict[str, Ensemble] = {}
    notes: list[str] = []
    for names in combinations(sorted(candidates.names), 2):
        masks = _try_ensemble(candidates, names, notes, progress)
        if masks is not None:
            trying = Trying(_make_tasks(candidates, masks, labelling), _name_unit(dataset), workers, progress)
            ensembles[" + ".join(names)] = Ensemble(names, masks, compute_dice(trying)[0])
    verdict = choose_product(singles, tables := {name: one.table for name, one in ensembles.items()})
    chosen = ensembles.get(verdict.winner)
    masks = chosen.masks if chosen else find_masks(candidates, verdict.winner)
    trying = Trying(_make_tasks(candidates, masks, labelling), _name_unit(dataset), workers, progress)
    rules, tried = choose_rules(trying)
    return Decision(
        metric="dice",
        configurations=chosen.configurations if chosen else (verdict.winner,),
        trials=(*_list_trials(verdict, singles, tables), *tried),
        scores=score_pairs(find_pairs(candidates, masks), labelling, workers, progress, rules=rules),
        rules=rules,
        notes=tuple(notes),
    )


def _try_ensemble(candidates: Candidates, names: tuple[str, ...], notes: list[str], progress: Progress) -> Mapping[str, Path] | None:
    """Case → mask; None where there can be none, and the reason is noted."""
    try:
        return _predict_ensemble(candidates, names, progress)
    except (InputError, CasesFailed, OutOfMemory) as error:
        reason = " ".join(error.what.splitlines()[:2])  # of a table of cases the title and the first
        notes.append(f"The ensemble of {' and '.join(names)} is not tried: {reason}")
        return None


def _predict_ensemble(candidates: Candidates, names: tuple[str, ...], progress: Progress) -> Mapping[str, Path]:
    """Raises InputError where one of the configurations has kept no probabilities, CasesFailed where they do not fit."""
    from autoseg.commands.ensemble import ensemble_validation, predict_validation  # torch, which only ensembles need

    output = candidates.run.path / "selection" / "+".join(names)
    make = predict_validation if candidates.dataset.task == "instance" else ensemble_validation
    masks = make(candidates.run, names, candidates.folds, output, progress)
    missing = [case for case in candidates.cases if case not in masks]
    if missing:
        raise InputError(f"{len(missing)} cases have no probabilities of both, such as {missing[0]}.")
    return masks


def _make_tasks(candidates: Candidates, masks: Mapping[str, Path], labelling: Labelling) -> tuple[ScoreTask, ...]:
    pairs = find_pairs(candidates, masks)
    return tuple(ScoreTask(case, mask, reference, labelling) for case, (mask, reference) in pairs.items())


def _name_unit(dataset: Dataset) -> str:
    return "voxels" if dataset.unit != "mm" else "mm³" if dataset.dimension == 3 else "mm²"


def _decide_objects(candidates: Candidates, workers: int | None, progress: Progress) -> Decision:
    """By AP_cell at an IoU of .5; near ties by its mean over .5 … .95. The masks are those of each fold's own thresholds.

    A Mask R-CNN is also tried with the help of a boundary network, by its own thresholds.
    """
    rows: dict[str, Sequence[Any]] = {name: load_rows(candidates, name) for name in candidates.names}
    ensembles: dict[str, Ensemble] = {}
    notes: list[str] = []
    for names in _list_helped(candidates):
        masks = _try_ensemble(candidates, names, notes, progress)
        if masks is not None:
            own = score_object_pairs(find_pairs(candidates, masks), load_manifest(candidates, names[0]), False, workers, progress)
            ensembles[" + ".join(names)] = Ensemble(names, masks, *(make_table(own.cases, metric) for metric in OBJECT_METRICS))
    singles, finer = ({name: make_table(own, metric) for name, own in rows.items()} for metric in OBJECT_METRICS)
    tables = {name: one.table for name, one in ensembles.items()}
    verdict = choose_product(singles, tables, finer | {name: one.finer for name, one in ensembles.items()})
    chosen = ensembles.get(verdict.winner)
    configurations = chosen.configurations if chosen else (verdict.winner,)
    pairs = find_pairs(candidates, chosen.masks if chosen else find_masks(candidates, verdict.winner))
    thresholds = {name: found for name in candidates.names if (found := _choose_thresholds(_load_headers(candidates, name))) is not None}
    note = "The scores are of masks by each fold's own thresholds, chosen on the same images, which flatters them a little"
    note += "; several folds together predict with the median of those." if len(candidates.folds) > 1 else "."
    return Decision(
        metric="ap_cell_50",
        configurations=configurations,
        trials=_list_trials(verdict, singles, tables),
        scores=score_object_pairs(pairs, load_manifest(candidates, configurations[0]), False, workers, progress),
        thresholds=thresholds,
        notes=(*notes, *([note] if thresholds else ())),
    )


def _list_helped(candidates: Candidates) -> list[tuple[str, ...]]:
    """A Mask R-CNN and the boundary network of as many dimensions, where both are candidates."""
    plan = candidates.run.load_plan()
    products = {one.name: (one.product, one.dimension) for one in plan.configurations if one.name in candidates.names}
    pairs = product(products.items(), repeat=2)
    return [(a, b) for (a, (own, size)), (b, (other, same)) in pairs if (own, other) == ("objects", "boundaries") and size == same]


def _choose_thresholds(headers: Sequence[ModelHeader]) -> Thresholds | None:
    """The median over folds of each limit, and what most of them do; None where none has chosen any."""
    found = [header.thresholds for header in headers if header.thresholds is not None]
    if not found:
        return None
    limits = {name: float(median(getattr(one, name) for one in found)) for name in ("score", "nms", "mask", "seed", "smallest")}
    return Thresholds(by_mask=2 * sum(one.by_mask for one in found) > len(found), **limits)


def _load_headers(candidates: Candidates, name: str) -> list[ModelHeader]:
    return [candidates.run.fold(name, fold).load_model() for fold in candidates.folds]


def _list_trials(verdict: Verdict, singles: Mapping[str, ScoreTable], ensembles: Mapping[str, ScoreTable]) -> tuple[Trial, ...]:
    trials = []
    for name, table in {**singles, **ensembles}.items():
        found = verdict.comparisons.get(name, Comparison(None, None, len(table)))
        versus = "" if name not in verdict.comparisons else verdict.single if name in ensembles else next(iter(singles))
        trials.append(
            Trial(
                what=name,
                versus=versus,
                mean=compute_mean(table),
                difference=found.difference,
                error=found.error,
                cases=found.cases,
                kept=name == verdict.winner,
            )
        )
    return tuple(trials)


def _average_folds(candidates: Candidates, decision: Decision) -> dict[str, float | None]:
    """Fold → mean of the chosen product on its validation cases."""
    table = make_table(decision.scores.cases, decision.metric)
    by_fold = {fold: {case: table[case] for case, own in candidates.cases.items() if own == fold} for fold in candidates.folds}
    return {str(fold): compute_mean(own) for fold, own in by_fold.items()}


def format_choice(choice: Choice, scores: Scores | InstanceScores) -> str:
    """The table for the screen: all that was tried, what is kept, the score of it, and how far the folds lie apart."""
    width = max(len(trial.what) for trial in choice.trials)
    lines = [f"{TITLES[choice.metric]} on {choice.cases} cases:", f"  {'':<{width}}     mean  difference ± standard error  cases"]
    for trial in choice.trials:
        gain = f"{_show(trial.difference, '+.4f')} ± {_show(trial.error, '.4f')}" if trial.versus else ""
        end = f"{trial.cases:>7}  {'kept' if trial.kept else '-'}" + (
            f" (to {trial.versus})" if trial.versus not in ("", "without") else ""
        )
        lines.append(f"  {trial.what:<{width}}  {_show(trial.mean, '.4f'):>7}  {gain:>27}{end}")
    intervals = [own[choice.metric] for own in scores.classes.values()]
    names = "; ".join(
        f"{name} {_show(own.mean, '.4f')} ({_show(own.low, '.4f')} … {_show(own.high, '.4f')})"
        for name, own in zip(scores.classes, intervals)
    )
    lines.append(
        f"  chosen: {' + '.join(choice.configurations)}, {TITLES[choice.metric]} {_show(scores.mean[choice.metric], '.4f')}; {names}"
    )
    known = [mean for mean in scores.folds.values() if mean is not None]
    if len(known) > 1:
        each = ", ".join(f"{fold}: {_show(mean, '.4f')}" for fold, mean in scores.folds.items())
        lines.append(f"  folds: {each} (from {min(known):.4f} to {max(known):.4f})")
    return "\n".join([*lines, *(f"  {note}" for note in choice.notes)])


def _show(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)
