"""Which models a command predicts with: those asked for, a run's choice, or all that are finished."""

from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import InputError
from autoseg.inference.ensemble import apply_thresholds, join_predictors
from autoseg.inference.predictor import Predictor, load_predictor
from autoseg.io.files import load_record
from autoseg.io.run_folder import FoldFolder, RunFolder, choose_configuration
from autoseg.networks.devices import choose_device
from autoseg.progress import Progress
from autoseg.records.choice import Choice, Rule


@dataclass(frozen=True)
class Request:
    """What is asked of a run: `cases` is "fold:K" or a list of case names, `folds` the models to average."""

    configuration: str | None = None
    folds: tuple[int, ...] = ()
    cases: str = ""

    @property
    def names_models(self) -> str:
        """The flag that says which models are meant, so that no choice is applied; empty where there is none."""
        return "--configuration" if self.configuration else "--folds" if self.folds else ""


@dataclass(frozen=True)
class Models:
    """The folds of each configuration that predict, their numbers, which cases are wanted (None: all), and the choice, where applied."""

    configurations: tuple[tuple[FoldFolder, ...], ...]
    numbers: tuple[int, ...]
    cases: frozenset[str] | None
    choice: Choice | None = None


def find_models(path: Path, request: Request, progress: Progress) -> Models:
    """The folds to average: those asked for, else the choice's, else all that are finished.

    Where the cases of one fold are asked for, only the models that have not seen them. Says what is chosen, and what is not applied.
    """
    if (path / "model.json").is_file():
        return _take_model(path, request, progress)
    run = RunFolder(path)
    plan = run.load_plan()
    number, cases = _read_cases(run, request.cases)
    if run.choice.is_file() and not request.names_models:
        return _take_choice(run, number, cases, progress)
    if run.choice.is_file():
        progress.say(f"choice.json is not applied: {request.names_models} says what to predict with.", event="choice")
    configuration = choose_configuration(plan, request.configuration)
    finished = run.finished_folds(configuration.name)
    if not finished:
        raise InputError(f"{path} has no finished fold of {configuration.name}.", todo=f"autoseg train {path} --fold 0")
    wanted = request.folds or number or tuple(finished)
    missing = [fold for fold in wanted if fold not in finished]
    if missing:
        raise InputError(f"Fold {missing[0]} of {configuration.name} is not finished.", f"Finished: {', '.join(map(str, finished))}.")
    return Models((tuple(run.fold(configuration.name, fold) for fold in wanted),), wanted, cases)


def _take_model(path: Path, request: Request, progress: Progress) -> Models:
    folder = FoldFolder(path)
    if request.cases.startswith("fold:"):
        raise InputError("--cases fold:K needs the run, not one of its models.")
    above = path.resolve().parents
    if len(above) > 2 and RunFolder(above[2]).choice.is_file():
        progress.say("The run's choice.json is not applied: this is one of its models.", event="choice")
    return Models(((folder,),), (folder.load_model().fold,), _list_cases(request.cases))


def _take_choice(run: RunFolder, number: tuple[int, ...], cases: frozenset[str] | None, progress: Progress) -> Models:
    choice = load_record(Choice, run.choice)
    folds = number or choice.folds  # averaging with folds that were trained on these cases would flatter
    for name in choice.configurations:
        missing = [fold for fold in folds if fold not in run.finished_folds(name)]
        if missing:
            raise InputError(
                f"Fold {missing[0]} of {name}, with which {run.choice} predicts, is not finished.",
                todo=f"autoseg train {run.path} --fold {missing[0]} --configuration {name}, or choose anew: autoseg select {run.path}",
            )
    models = Models(tuple(tuple(run.fold(name, fold) for fold in folds) for name in choice.configurations), folds, cases, choice)
    progress.say(f"By {run.choice}: {describe_choice(choice)}", event="choice", configurations=list(choice.configurations))
    anew = _find_trained_anew(models, choice)
    if anew:
        progress.warn(f"{anew} was trained anew since the choice: autoseg select {run.path}", event="choice_outdated")
    return models


def describe_choice(choice: Choice) -> str:
    """The choice in one line: configurations and rules."""
    return " + ".join(choice.configurations) + "".join(f", then {_describe_rule(rule)}" for rule in choice.rules)


def _describe_rule(rule: Rule) -> str:
    least = f" {rule.volume:g}" if rule.kind == "minimum_volume" else ""
    return f"{rule.kind.replace('_', ' ')}{least} of {rule.class_name or 'all classes as one'}"


def _find_trained_anew(models: Models, choice: Choice) -> str:
    """The first model whose weights are not those that the choice knew; empty where there is none."""
    for name, folders in zip(choice.configurations, models.configurations):
        known = dict(zip(choice.folds, choice.weights_digests.get(name, ())))
        for folder, number in zip(folders, models.numbers):
            if number in known and folder.load_model().weights_digest != known[number]:
                return f"Fold {number} of {name}"
    return ""


def _list_cases(text: str) -> frozenset[str] | None:
    return frozenset(text.split(",")) if text else None


def _read_cases(run: RunFolder, text: str) -> tuple[tuple[int, ...], frozenset[str] | None]:
    """The fold whose cases are asked for, if it is, and the cases."""
    if not text.startswith("fold:"):
        return (), _list_cases(text)
    folds = run.load_splits().folds
    number = text.removeprefix("fold:")
    if not number.isdigit() or int(number) >= len(folds):
        raise InputError(f"--cases {text} names no fold.", f"Folds: 0 … {len(folds) - 1}.")
    return (int(number),), frozenset(folds[int(number)].validation)


def load_models(models: Models, device: str, mirror: bool) -> Predictor:
    """All of them as one predictor, with the thresholds and rules of the choice."""
    predictors = [load_predictor(list(folders), choose_device(device), mirror) for folders in models.configurations]
    if models.choice is None:
        return join_predictors(predictors)
    chosen = [models.choice.thresholds.get(name) for name in models.choice.configurations]
    tuned = [apply_thresholds(own, thresholds) if thresholds else own for own, thresholds in zip(predictors, chosen)]
    return join_predictors(tuned, models.choice.rules)
