"""`autoseg compare`: two sets of masks of the same cases, difference by difference."""

from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.commands.evaluate import Wanted, choose_labelling, find_masks, score_pairs
from autoseg.commands.evaluate_objects import score_object_pairs
from autoseg.commands.pairs import find_references
from autoseg.errors import CasesFailed, InputError
from autoseg.evaluation.comparison import compare_rows
from autoseg.io.files import save_record
from autoseg.progress import Progress, Silent
from autoseg.records.comparison import Comparison, PairedDifference
from autoseg.records.predictions import Predictions
from autoseg.records.scores import GLAS_METRICS, INSTANCE_METRICS, METRICS, InstanceScores, Scores, decode_scores

NOT_COMPARED = frozenset({"volume_reference_ml", "volume_predicted_ml", "volume_difference_ml", "count_bias"})  # neither way is better
MAIN = {"semantic": "dice", "instance": "ap_cell_50"}  # the metric whose cases are listed
AnyScores = Scores | InstanceScores
WORDS = {
    "first": "A is better, by more than noise",
    "second": "B is better, by more than noise",
    "noise": "no more than noise",
    "few cases": "too few cases to tell from noise",
}


@dataclass(frozen=True)
class CompareOptions:
    """What to compare; `common` leaves out without a word of protest what only one side has."""

    wanted: Wanted = Wanted()
    common: bool = False
    workers: int | None = None


@dataclass(frozen=True)
class Side:
    """One of both: where it lies, and its masks and manifest, or its finished scores."""

    path: Path
    masks: dict[str, Path]
    manifest: Predictions | None = None
    scores: AnyScores | None = None


def compare(
    first: str | Path,
    second: str | Path,
    references: str | Path | None = None,
    output: str | Path | None = None,
    options: CompareOptions = CompareOptions(),
    progress: Progress = Silent(),
) -> Comparison:
    """Paired differences second - first by class and metric, over the cases that both have; writes `output` (JSON) where given.

    Each side is a folder of masks, which is scored against the references, a scores.json, or a folder that holds one (a run). Without
    `references` both must have one. Raises InputError where they cannot be compared, and, after all else, CasesFailed for cases that only
    one side has, unless `options.common`.
    """
    sides = [_open_side(Path(path), references) for path in (first, second)]
    comparison = _compare(sides, *_score(sides, str(references or ""), options, progress))
    if output is not None:
        save_record(Path(output), comparison)
    progress.say(format_comparison(comparison), event="comparison")
    lonely = [*comparison.only_first, *comparison.only_second]
    if lonely and not options.common:
        parts = zip(("A", "B"), (comparison.only_first, comparison.only_second))
        raise CasesFailed(
            "Some cases are in one of both alone: " + "; ".join(f"{name}: {_shorten(cases)}" for name, cases in parts if cases),
            done="The cases that both have are compared.",
            todo="Predict the others too, or add --common.",
        )
    return comparison


def _open_side(path: Path, references: str | Path | None) -> Side:
    """Masks where there are references to score them against, else the scores."""
    if path.is_file():
        return Side(path, {}, scores=_read_scores(path))
    if not path.is_dir():
        raise InputError(f"{path} does not exist.", todo="Give a folder of masks, a scores.json, or a folder that holds one.")
    if references is not None:
        try:
            return Side(path, *find_masks(path))
        except InputError:
            if not (path / "scores.json").is_file():
                raise
    if (path / "scores.json").is_file():
        return Side(path, {}, scores=_read_scores(path / "scores.json"))
    raise InputError(f"{path} holds no scores.json.", todo="Add --reference FOLDER to score its masks.")


def _read_scores(path: Path) -> AnyScores:
    return decode_scores(path.read_bytes(), str(path))


def _score(sides: list[Side], references: str, options: CompareOptions, progress: Progress) -> list[AnyScores]:
    """Scores what is not scored yet. Both sides' values mean the same: what the manifest of either says."""
    manifest = next((side.manifest for side in sides if side.manifest is not None), None)
    return [side.scores or _score_side(replace(side, manifest=side.manifest or manifest), references, options, progress) for side in sides]


def _score_side(side: Side, references: str, options: CompareOptions, progress: Progress) -> AnyScores:
    found = find_references(references, set(side.masks), side.manifest.label_pattern if side.manifest else "")
    lonely = sorted(set(side.masks) - set(found))
    if lonely:
        raise InputError(f"{len(lonely)} of {len(side.masks)} masks in {side.path} have no reference in {references}: {_shorten(lonely)}.")
    labelling = choose_labelling(options.wanted, side.manifest, [found[case] for case in sorted(side.masks)])
    pairs = {case: (mask, found[case]) for case, mask in sorted(side.masks.items())}
    if labelling is None:
        return score_object_pairs(pairs, side.manifest, options.wanted.metrics == "glas", options.workers, progress)
    return score_pairs(pairs, labelling, options.workers, progress)


def _compare(sides: list[Side], one: AnyScores, two: AnyScores) -> Comparison:
    """Raises InputError for scores of different kinds, of other references, or with nothing in common."""
    task = "instance" if isinstance(one, InstanceScores) else "semantic"
    if type(one) is not type(two):
        raise InputError(f"{sides[0].path} and {sides[1].path} are scores of different tasks: of classes and of objects.")
    _refuse_other_references(sides, one, two)
    cases = [{row.case for row in scores.cases} for scores in (one, two)]
    metrics = (*INSTANCE_METRICS, *GLAS_METRICS) if task == "instance" else METRICS
    differences = compare_rows(one.cases, two.cases, [metric for metric in metrics if metric not in NOT_COMPARED])
    if not differences:
        names = " and ".join(
            f"{side.path} ({', '.join(scores.classes)}, {len(own)} cases)" for side, scores, own in zip(sides, (one, two), cases)
        )
        raise InputError(f"There is nothing to compare: no class of a case has a score in both {names}.")
    return Comparison(
        task=task,  # type: ignore[arg-type]
        first=str(sides[0].path),
        second=str(sides[1].path),
        differences=differences,
        only_first=tuple(sorted(cases[0] - cases[1])),
        only_second=tuple(sorted(cases[1] - cases[0])),
    )


def _refuse_other_references(sides: list[Side], one: AnyScores, two: AnyScores) -> None:
    """Equal references have equal numbers of voxels, or objects, by case and class."""
    field = "objects_reference" if isinstance(one, InstanceScores) else "voxels_reference"
    known = {(row.case, row.class_name): getattr(row, field) for row in one.cases}
    other = [row.case for row in two.cases if known.get((row.case, row.class_name), getattr(row, field)) != getattr(row, field)]
    if other:
        raise InputError(
            f"{sides[0].path} and {sides[1].path} were scored against different references.",
            f"{field} differs in {len(set(other))} cases: {_shorten(sorted(set(other)))}.",
            todo="Score both anew: autoseg compare A B --reference FOLDER, with folders of masks.",
        )


def _shorten(cases: tuple[str, ...] | list[str]) -> str:
    return ", ".join(cases[:5]) + (f" and {len(cases) - 5} more" if len(cases) > 5 else "")


def format_comparison(comparison: Comparison) -> str:
    """The table for the screen: a row per class and metric; below it, by class, the cases that differ most in the main metric."""
    lines = [f"A: {comparison.first}", f"B: {comparison.second}"]
    main = MAIN[comparison.task]
    for name in dict.fromkeys(one.class_name for one in comparison.differences):
        lines.append(f"{name}:")
        lines.append(f"  {'':<16}{'A':>9}  {'B':>9}  {'B - A':>9}  {'95 % interval':>21}  {'p':>7}  {'p Holm':>7}  {'cases':>5}")
        own = [one for one in comparison.differences if one.class_name == name]
        for one in own:
            lines.append(_format_row(one))
        lines += [line for one in own if one.metric == main for line in _format_cases(one)]
    lines.append("p: Wilcoxon's signed-rank test over cases; p Holm: corrected for the number of classes, not for that of metrics.")
    lines.append("More than noise: the interval leaves 0 out, and p Holm is below 0.05.")
    for word, cases in (("A", comparison.only_first), ("B", comparison.only_second)):
        if cases:
            lines.append(f"Only in {word}, left out: {_shorten(cases)}")
    return "\n".join(lines)


def _format_row(one: PairedDifference) -> str:
    difference = one.difference
    bounds = f"{difference.low:+.4f} … {difference.high:+.4f}"
    values = f"{one.first:>9.4f}  {one.second:>9.4f}  {difference.mean:>+9.4f}  {bounds:>21}"
    note = f"; {one.one_sided} cases defined on one side alone" if one.one_sided else ""
    return f"  {one.metric:<16}{values}  {_show_p(one.p):>7}  {_show_p(one.p_holm):>7}  {difference.n:>5}  {WORDS[one.judgement]}{note}"


def _show_p(value: float | None) -> str:
    return "n/a" if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _format_cases(one: PairedDifference) -> list[str]:
    lines = []
    for word, cases in (("worse", one.worst), ("better", one.best)):
        if cases:
            shown = ", ".join(f"{case.case} {case.difference:+.3f} ({case.first:.3f} to {case.second:.3f})" for case in cases)
            lines.append(f"  {one.metric} {word} in B: {shown}")
    return lines
