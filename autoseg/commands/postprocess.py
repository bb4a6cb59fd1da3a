"""Which rules of post-processing help: tried on the masks of cases that the models have not seen, case by case in worker processes."""

from dataclasses import dataclass, replace

import numpy as np

from autoseg.arrays.postprocessing import apply_rules, label_components
from autoseg.commands.evaluate import ScoreTask, read_pair
from autoseg.commands.pairs import run_pairs
from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.selection import Comparison, ScoreTable, choose_volumes, compute_mean, judge_change
from autoseg.progress import Progress
from autoseg.records.choice import Rule, Trial
from autoseg.records.dataset import ClassLabel, are_regions, list_parts


@dataclass(frozen=True)
class RuleTask:
    """One case for a worker: its files with the rules that are kept so far, and those to be tried on top of them, each by itself."""

    pair: ScoreTask
    offered: tuple[Rule, ...]

    @property
    def case(self) -> str:
        return self.pair.case


@dataclass(frozen=True)
class Components:
    """Volumes of the components of every class in the reference of a case, and that of a voxel: mm³, mm², or voxels."""

    volumes: tuple[tuple[float, ...], ...]
    voxel: float


@dataclass(frozen=True)
class Trying:
    """The cases that rules are tried on, and with what; `unit` of their volumes."""

    tasks: tuple[ScoreTask, ...]
    unit: str
    workers: int | None
    progress: Progress

    @property
    def classes(self) -> tuple[ClassLabel, ...]:
        return self.tasks[0].labelling.classes


def choose_rules(trying: Trying) -> tuple[tuple[Rule, ...], tuple[Trial, ...]]:
    """The rules that are worth keeping, and all that were tried: each is judged on top of those kept before it.

    First the largest component of all foreground. Then, of classes that exclude each other, class by class: the largest component, holes
    filled, and the best of a few minimum volumes. Rules of one kind for several classes are judged at the same time, since none of them
    changes what another class gets right: they take voxels of their own class only, or of background inside it.
    """
    names = [label.name for label in trying.classes]
    kept, trials = _try_round(trying, (), (Rule(kind="largest_component"),))
    if are_regions(trying.classes):
        return kept, trials
    rounds = [] if len(names) == 1 else [tuple(Rule(kind="largest_component", class_name=name) for name in names)]
    rounds += [tuple(Rule(kind="fill_holes", class_name=name) for name in names), offer_volumes(trying)]
    for offered in rounds:
        kept, tried = _try_round(trying, kept, offered)
        trials += tried
    return kept, trials


def _try_round(trying: Trying, kept: tuple[Rule, ...], offered: tuple[Rule, ...]) -> tuple[tuple[Rule, ...], tuple[Trial, ...]]:
    """The rules with those of the offered ones that help, at most one for each class; and the trials of all."""
    if not offered:
        return kept, ()
    before, *after = compute_dice(trying, kept, offered)
    names = [label.name for label in trying.classes]
    judged = {rule: judge_change(table, before, rule.class_name, names) for rule, table in zip(offered, after)}
    best: dict[str, Rule] = {}
    for rule, (gain, helps) in judged.items():
        other = best.get(rule.class_name)
        if helps and (other is None or (gain.difference or 0.0) > (judged[other][0].difference or 0.0)):
            best[rule.class_name] = rule
    trials = tuple(_make_trial(rule, table, judged[rule][0], rule in best.values(), trying) for rule, table in zip(offered, after))
    return (*kept, *best.values()), trials


def compute_dice(trying: Trying, kept: tuple[Rule, ...] = (), offered: tuple[Rule, ...] = ()) -> list[ScoreTable]:
    """Dice with the rules that are kept, then with each of the offered ones added."""
    tasks = [RuleTask(replace(task, rules=kept), offered) for task in trying.tasks]
    scored = run_pairs(try_rules, tasks, trying.workers, trying.progress)
    return [{case: tables[place] for case, tables in scored.items()} for place in range(len(offered) + 1)]


def try_rules(task: RuleTask) -> list[dict[str, float | None]]:
    """Dice by class of one case: by the rules kept so far, and with each of the offered ones added. Raises InputError as scoring does."""
    pair, classes = read_pair(task.pair), task.pair.labelling.classes
    masks = [pair.mask, *(apply_rules(pair.mask, (rule,), classes, pair.spacing) for rule in task.offered)]
    return [_score(task.case, changed, pair.reference, classes) for changed in masks]


def _score(case: str, mask: np.ndarray, reference: np.ndarray, classes: tuple[ClassLabel, ...]) -> dict[str, float | None]:
    return {row.class_name: row.dice for row in score_case(case, count_joint(mask, reference, len(list_parts(classes))), classes, None)}


def offer_volumes(trying: Trying) -> tuple[Rule, ...]:
    """Minimum volumes of every class that the references suggest; nothing for a class that they do not have."""
    found = list(run_pairs(measure_components, trying.tasks, trying.workers, trying.progress).values())
    voxel = min(case.voxel for case in found)
    rules: list[Rule] = []
    for place, label in enumerate(trying.classes):
        volumes = choose_volumes([volume for case in found for volume in case.volumes[place]], voxel)
        rules += [Rule(kind="minimum_volume", class_name=label.name, volume=volume) for volume in volumes]
    return tuple(rules)


def measure_components(task: ScoreTask) -> Components:
    """The components of the classes 1 … N in a case's reference."""
    pair = read_pair(task)
    voxel = float(np.prod(pair.spacing))
    sizes = [label_components(pair.reference == number)[1] for number in range(1, len(task.labelling.classes) + 1)]
    return Components(tuple(tuple((own * voxel).tolist()) for own in sizes), voxel)


def _make_trial(rule: Rule, table: ScoreTable, gain: Comparison, kept: bool, trying: Trying) -> Trial:
    """`mean` is the rule's class's, where it is for one."""
    shown = {case: {rule.class_name: scores[rule.class_name]} for case, scores in table.items()} if rule.class_name else table
    return Trial(
        what=describe_rule(rule, trying.unit),
        versus="without",
        mean=compute_mean(shown),
        difference=gain.difference,
        error=gain.error,
        cases=gain.cases,
        kept=kept,
    )


def describe_rule(rule: Rule, unit: str = "mm³") -> str:
    """In words.

    >>> describe_rule(Rule(kind="minimum_volume", class_name="tumour", volume=12.5))
    'tumour: components of at least 12.5 mm³'
    """
    words = {
        "largest_component": "largest component",
        "fill_holes": "holes filled",
        "minimum_volume": f"components of at least {rule.volume:g} {unit}",
    }
    return f"{rule.class_name or 'all classes'}: {words[rule.kind]}"
