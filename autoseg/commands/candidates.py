"""What there is to select from: configurations with finished folds, and their masks of cases that the fold's model has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import InputError
from autoseg.io.files import load_record
from autoseg.io.run_folder import RunFolder, choose_configuration
from autoseg.records.dataset import Dataset
from autoseg.records.plan import Plan
from autoseg.records.predictions import Predictions
from autoseg.records.scores import CaseScore, InstanceScore, decode_scores
from autoseg.records.splits import Splits
from autoseg.records.training import TrainingStatus

MANIFEST = "predictions.json"
SCORES = "scores.json"
FEW = 20  # cases; below, a difference is often chance
NAMED = 5  # that many cases of a list are named


@dataclass(frozen=True)
class Candidates:
    """Configurations (the plan's own choice first) with the folds that all of them have finished, and case → the fold that predicts it.

    `notes` say what is left out and why.
    """

    run: RunFolder
    dataset: Dataset
    names: tuple[str, ...]
    folds: tuple[int, ...]
    cases: dict[str, int]
    notes: tuple[str, ...]


def gather(run: RunFolder, asked: Sequence[str] = ()) -> Candidates:
    """The configurations asked for, else those with the most finished folds; the others are named in the notes.

    Raises InputError where no fold is finished, or one of those asked for lacks folds that another has.
    """
    plan, splits, dataset = run.load_plan(), run.load_splits(), run.load_dataset()
    names = [choose_configuration(plan, name).name for name in dict.fromkeys(asked)] or _list_names(plan)
    finished = {name: list_finished(run, name, splits) for name in names}
    if asked:
        folds = sorted(set().union(*finished.values()))
        _refuse_missing(run, {name: _subtract(folds, own) for name, own in finished.items()})
    else:
        folds = max(finished.values(), key=len)
    if not folds:
        raise InputError(
            f"{run.path} has no finished fold{f' of {names[0]}' if len(names) == 1 else ''}: nothing to select from.",
            "A fold is finished when it has a model and its validation cases are predicted and scored.",
            todo=f"autoseg train {run.path} --fold all",
        )
    chosen = tuple(name for name, own in finished.items() if set(folds) <= set(own))
    cases, unseen = _list_cases(run, chosen, folds, splits, dataset)
    notes = (
        *(_describe_left_out(run, name, own, folds) for name, own in finished.items() if name not in chosen),
        *_describe_worth(folds, splits, len(cases)),
        *([f"{len(unseen)} validation cases have no mask yet and are left out: {_shorten(unseen)}."] if unseen else []),
    )
    return Candidates(run, dataset, chosen, tuple(folds), cases, notes)


def list_finished(run: RunFolder, name: str, splits: Splits) -> list[int]:
    """Folds of the splits that have a model and scores of it; one whose training is being extended has not."""
    return [number for number in run.finished_folds(name) if number < len(splits.folds) and _is_scored(run, name, number)]


def _is_scored(run: RunFolder, name: str, number: int) -> bool:
    folder = run.fold(name, number)
    if not all(path.is_file() for path in (folder.status, folder.validation / MANIFEST, folder.validation / SCORES)):
        return False
    return load_record(TrainingStatus, folder.status).state == "finished"


def _list_names(plan: Plan) -> list[str]:
    names = [configuration.name for configuration in plan.configurations]
    return [plan.default_configuration, *(name for name in names if name != plan.default_configuration)]


def _refuse_missing(run: RunFolder, missing: dict[str, list[int]]) -> None:
    lacking = {name: folds for name, folds in missing.items() if folds}
    if lacking:
        raise InputError(
            "; ".join(f"{name} lacks {_name_folds(folds)}" for name, folds in lacking.items()) + ".",
            "Configurations are compared on the same cases.",
            todo="\n".join(_make_command(run, name, fold) for name, folds in lacking.items() for fold in folds),
        )


def _describe_left_out(run: RunFolder, name: str, own: list[int], folds: list[int]) -> str:
    missing = _subtract(folds, own)
    if not own:
        return f"{name} is left out: no fold of it is finished."
    return f"{name} is left out: it lacks {_name_folds(missing)} ({_make_command(run, name, missing[0])})."


def _describe_worth(folds: list[int], splits: Splits, cases: int) -> list[str]:
    notes = []
    if len(folds) < len(splits.folds):
        every = sum(len(fold.validation) for fold in splits.folds)
        notes.append(f"Only {_name_folds(folds)} of {len(splits.folds)}: the choice rests on {cases} of {every} cases.")
    if cases < FEW:
        notes.append(f"The choice rests on {cases} cases only: other cases might have led to another one.")
    return notes


def _list_cases(
    run: RunFolder, names: Sequence[str], folds: Sequence[int], splits: Splits, dataset: Dataset
) -> tuple[dict[str, int], list[str]]:
    """Case → fold of all that every configuration has a mask of, and the validation cases that one of them has none of."""
    labelled = {case.id for case in dataset.cases if case.label is not None}
    cases, unseen = {}, []
    for fold in folds:
        known = [set(_load_masks(run, name, fold)) for name in names]
        for case in splits.folds[fold].validation:
            if case in labelled and all(case in own for own in known):
                cases[case] = fold
            else:
                unseen.append(case)
    if not cases:
        raise InputError(
            f"None of the validation cases of {_name_folds(list(folds))} has a mask and a reference.", f"They are {unseen[:3]}."
        )
    return cases, unseen


def _load_masks(run: RunFolder, name: str, fold: int) -> dict[str, str]:
    manifest = load_record(Predictions, run.fold(name, fold).validation / MANIFEST)
    return {case.case: case.mask for case in manifest.cases if case.state == "done"}


def find_pairs(candidates: Candidates, masks: Mapping[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Case → mask and reference, of all cases that are selected on."""
    root = Path(candidates.dataset.root)
    references = {case.id: root / (case.label or "") for case in candidates.dataset.cases}
    return {case: (masks[case], references[case]) for case in candidates.cases}


def find_masks(candidates: Candidates, name: str) -> dict[str, Path]:
    """Case → the mask by the fold that has not seen the case."""
    run = candidates.run
    masks = {fold: _load_masks(run, name, fold) for fold in candidates.folds}
    return {case: run.fold(name, fold).validation / masks[fold][case] for case, fold in candidates.cases.items()}


def load_rows(candidates: Candidates, name: str) -> list[CaseScore] | list[InstanceScore]:
    """The scores of those masks, as every fold's validation has left them."""
    rows: list[Any] = []
    for fold in candidates.folds:
        path = candidates.run.fold(name, fold).validation / SCORES
        found = decode_scores(path.read_bytes(), str(path)).cases
        rows += [row for row in found if candidates.cases.get(row.case) == fold]
    return rows


def load_manifest(candidates: Candidates, name: str) -> Predictions:
    """What the masks of a configuration are; that of its first fold says it for all."""
    return load_record(Predictions, candidates.run.fold(name, candidates.folds[0]).validation / MANIFEST)


def _subtract(folds: list[int], own: list[int]) -> list[int]:
    return [fold for fold in folds if fold not in own]


def _name_folds(folds: list[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


def _make_command(run: RunFolder, name: str, fold: int) -> str:
    return f"autoseg train {run.path} --fold {fold} --configuration {name}"
