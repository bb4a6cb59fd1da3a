"""What scores mean: their lights, what they are good enough for, and what went wrong, after `evaluate` and at the end of a run."""

import sys
from collections.abc import Sequence

import msgspec

from autoseg.errors import InputError
from autoseg.evaluation.diagnosis import Background, diagnose
from autoseg.evaluation.lights import LIMITS, judge_purposes, light_classes
from autoseg.evaluation.training_course import Course, Point
from autoseg.io.files import load_record, save_record
from autoseg.io.run_folder import RunFolder
from autoseg.progress import Progress
from autoseg.records.choice import Choice
from autoseg.records.scores import InstanceScores, Scores
from autoseg.records.verdict import Finding, Fitness, Light, Limit

NO_CLAIM = "These limits are rules of thumb for comparing masks with references. They make no claim of clinical fitness."
ANSWERS = {True: "yes", False: "no", None: "n/a"}


def judge(scores: Scores, limits: Sequence[Limit] = LIMITS, known: Background = Background()) -> Scores:
    """The scores with their lights, purposes and findings."""
    return msgspec.structs.replace(
        scores,
        lights=light_classes(scores, limits),
        purposes=judge_purposes(scores),
        findings=diagnose(scores, known),
    )


def choose_limits(changes: Sequence[tuple[str, float, float]]) -> tuple[Limit, ...]:
    """The limits with changes (metric, green, amber). Raises InputError for unknown metrics, and an amber better than its green."""
    table = {limit.metric: limit for limit in LIMITS}
    for metric, green, amber in changes:
        if metric not in table:
            raise InputError(f"There is no light for '{metric}'.", f"There are lights for {', '.join(table)}.")
        usual = table[metric]
        if (amber - green) * (usual.amber - usual.green) < 0:
            raise InputError(
                f"--limits {metric}={green:g}:{amber:g}: amber is better than green.", todo=f"--limits {metric}={amber:g}:{green:g}"
            )
        table[metric] = Limit(metric=metric, green=green, amber=amber)
    return tuple(table.values())


def judge_run(run: RunFolder, scores: Scores | InstanceScores, progress: Progress) -> Scores | InstanceScores:
    """Judges the scores of a whole run with what its folds and their logs show, says it, and keeps it in the run's scores.json.

    Scores of objects have no lights and stay as they are.
    """
    if isinstance(scores, InstanceScores):
        return scores
    known = Background(tuple(fold.validation for fold in run.load_splits().folds), tuple(read_courses(run)))
    judged = judge(scores, known=known)
    save_record(run.scores, judged)
    progress.say(format_verdict(judged), event="verdict")
    return judged


def read_courses(run: RunFolder) -> list[Course]:
    """What the logs of the finished folds show, of the configurations that the run chose, else of the planned one."""
    from autoseg.training.log import read_log  # torch, which judging scores alone does not need

    names = [label.name for label in run.load_dataset().classes]
    chosen = load_record(Choice, run.choice).configurations if run.choice.is_file() else (run.load_plan().default_configuration,)
    courses = []
    for configuration in chosen:
        for number in run.finished_folds(configuration):
            fold = run.fold(configuration, number)
            rows = read_log(fold.log, names, "dice", sys.maxsize)
            points = tuple(Point(row.step, row.loss, row.mean_score) for row in rows if row.mean_score is not None)
            courses.append(Course(f"{configuration}, fold {number}", points))
    return courses


def format_verdict(scores: Scores) -> str:
    """The lights as a table of classes and metrics, the purposes, and the findings with their cures."""
    metrics = list(dict.fromkeys(light.metric for light in scores.lights))
    width = max(len("class"), *(len(name) for name in scores.classes))
    lines = ["Traffic light (mean; cases green/amber/red):"]
    lines.append(f"  {'class':<{width}}  " + "  ".join(f"{metric:<22}" for metric in metrics))
    for name in scores.classes:
        own = {light.metric: light for light in scores.lights if light.class_name == name}
        lines.append(f"  {name:<{width}}  " + "  ".join(f"{_format_light(own[metric]):<22}" for metric in metrics).rstrip())
    missed = {light.class_name: light.missed for light in scores.lights if light.missed}
    lines += [f"  {name}: {count} cases have no distance, since mask or reference is empty: red" for name, count in missed.items()]
    lines += _format_purposes(scores.purposes)
    lines.append(f"  {NO_CLAIM}")
    return "\n".join([*lines, *_format_findings(scores.findings)])


def _format_light(light: Light) -> str:
    if light.colour == "n/a":
        return "n/a"
    value = "" if light.value is None else f"{light.value:.3g} " if light.metric == "hausdorff" else f"{light.value:.3f} "
    return f"{light.colour} {value}({light.green}/{light.amber}/{light.red})"


def _format_purposes(purposes: Sequence[Fitness]) -> list[str]:
    """A line per purpose: its demands, and the answer for each class."""
    lines = []
    for purpose, demands in dict.fromkeys((one.purpose, one.demands) for one in purposes):
        answers = ", ".join(f"{one.class_name} {ANSWERS[one.met]}" for one in purposes if one.purpose == purpose)
        lines.append(f"  above the limits for {purpose} ({demands}): {answers}")
    return lines


def _format_findings(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return ["Diagnosis: nothing stands out."]
    lines = ["Diagnosis:"]
    for finding in findings:
        lines += [f"  {finding.what} {finding.evidence}", f"    Cure: {finding.cure}"]
    return lines
